"""Evaluation: what a target is asked, in which picture's company, and what it says, kill after kill."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Question": "target",
    "Reply": "target",
    "Decoding": "target",
    "Target": "target",
    "RunFolder": "folder",
    "Settings": "manifest",
    "Shard": "blocks",
    "Task": "tasks",
    "in_mode": "image_modes",
    "run_evaluation": "run",
    "check_parity": "parity",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
