"""Where the projector sits and which rows are text, per model family: a table, not a class hierarchy."""

from __future__ import annotations

from regap_patch.lazy import lazy_exports

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
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
