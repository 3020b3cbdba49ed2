"""What judges make of answers: presets, the run over a folder, and how they fare against people."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Exchange": "protocol",
    "Judge": "protocol",
    "Judgement": "protocol",
    "judge_all": "protocol",
    "classify": "response_class",
    "judge_run": "run",
    "JudgeReport": "run",
    "Preset": "catalogue",
    "presets": "catalogue",
    "preset": "catalogue",
    "Resources": "make",
    "make_judge": "make",
    "read_labelled": "validation",
    "validate": "validation",
    "Validation": "validation",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
