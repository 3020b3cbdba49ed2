"""The larger commands of `regap`: their flags and what they print. The work is done in other rooms."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {"add_mir": "mir", "add_gap": "gap", "add_eval": "eval"}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
