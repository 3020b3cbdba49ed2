"""The miniature: a picture world, tiny models trained on it, and the whole LLaVA recipe at laptop size."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "World": "world",
    "make_world": "world",
    "make_refusal_world": "refusal_world",
    "make_tiny_clip": "tiny",
    "make_tiny_llama": "tiny",
    "train_tokenizer": "tiny",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
