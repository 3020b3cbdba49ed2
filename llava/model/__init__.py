"""The models: language model, vision tower, projector, and how they are put together."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = "llava.model.language_model.llava_llama"

__all__ = ["LlavaConfig", "LlavaLlamaForCausalLM", "LlavaLlamaModel"]


def __getattr__(name: str) -> Any:
    """Import on first use; an import that fails says why."""
    if name in __all__:
        return getattr(import_module(_HOME), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
