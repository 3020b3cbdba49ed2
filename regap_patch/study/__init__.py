"""The miniature: a picture world, tiny models trained on it, and the whole LLaVA recipe at laptop size."""

from __future__ import annotations

from regap_patch.lazy import lazy_exports

_HOMES = {
    "World": "world",
    "make_world": "world",
    "make_refusal_world": "refusal_world",
    "make_tiny_clip": "tiny",
    "make_tiny_llama": "tiny",
    "train_tokenizer": "tiny",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
