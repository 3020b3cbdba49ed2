"""Where the projector sits and which rows are text, per model family: a table, not a class hierarchy."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Host": "host",
    "ImageSlots": "host",
    "placeholder_slots": "huggingface",
    "one_image_each": "huggingface",
    "image_token_of": "huggingface",
    "find_host": "table",
    "unwrapped": "table",
    "text_rows_mask": "text",
    "ENTRY_POINTS": "table",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
