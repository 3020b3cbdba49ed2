"""Forward passes over image-text pairs: the gap at the language model's input, and MIR at every layer."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "measure_mir": "mir",
    "MirSettings": "mir",
    "MirReport": "mir",
    "measure_gap": "gap",
    "GapReport": "gap",
    "Pair": "pairs",
    "PairSet": "pairs",
    "choose_pairs": "pairs",
    "compare_mir": "compare",
    "load_checkpoint": "checkpoints",
    "plan_mir": "plan",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
