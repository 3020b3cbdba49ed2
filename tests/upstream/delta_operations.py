"""Deltas of both packages named `llava`; as in `operations.py`, whichever the running interpreter has."""

from __future__ import annotations


def make(*, base: str, target: str, delta: str) -> None:
    """Writes `target - base`."""
    from llava.model.make_delta import make_delta

    make_delta(base, target, delta, None)


def apply(*, base: str, target: str, delta: str) -> None:
    """Writes `base + delta`."""
    from llava.model.apply_delta import apply_delta

    apply_delta(base, target, delta)
