"""LLaVA on current transformers: the same names, flags, data and checkpoints."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {"LlavaLlamaForCausalLM": "llava.model.language_model.llava_llama"}

__all__ = ["LlavaLlamaForCausalLM"]


def __getattr__(name: str) -> Any:
    """Import on first use; an import that fails says why."""
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
