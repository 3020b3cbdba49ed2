"""A patch is a value with a lifetime: made by one call, visible in its `repr`, ended by `remove()`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "apply_regap": "apply",
    "find_patch": "apply",
    "ReGapConfig": "config",
    "GapPatch": "handle",
    "GapRecord": "record",
    "StepMeans": "totals",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
