"""The models: language model, vision tower, projector, and how they are put together."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {
    "LlavaConfig": "llava_llama",
    "LlavaLlamaForCausalLM": "llava_llama",
    "LlavaLlamaModel": "llava_llama",
    "LlavaMistralConfig": "llava_mistral",
    "LlavaMistralForCausalLM": "llava_mistral",
    "LlavaMistralModel": "llava_mistral",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    """Import on first use; an import that fails says why."""
    if name in _EXPORTS:
        return getattr(import_module(f"llava.model.language_model.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
