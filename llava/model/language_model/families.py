"""Which classes a language model becomes when it gets eyes."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple


class Family(NamedTuple):
    """Where the classes of one family of language models are."""

    module: str
    config: str
    model: str


_LLAMA = Family("llava_llama", "LlavaConfig", "LlavaLlamaForCausalLM")
_MISTRAL = Family("llava_mistral", "LlavaMistralConfig", "LlavaMistralForCausalLM")

# `model_type` of a config.json. `llava` is what old LLaVAs on LLaMA say, `share4v` what ShareGPT4V's say.
FAMILIES = {
    "llama": _LLAMA,
    "llava": _LLAMA,
    "llava_llama": _LLAMA,
    "share4v": _LLAMA,
    "mistral": _MISTRAL,
    "llava_mistral": _MISTRAL,
}
_MPT = {"mpt", "llava_mpt"}


def llava_class_for(model_type: str | None) -> tuple[Any, Any]:
    """The configuration class and the model class for a `model_type`, of a language model or of a LLaVA.

    Raises:
        ValueError: MPT, or a family that has no classes here.
    """
    if model_type in _MPT:
        raise ValueError(
            f"The language model is of the type '{model_type}', and LLaVA on MPT is not supported (nor does "
            "upstream's last version run it); take a LLaMA, Vicuna or Mistral checkpoint."
        )
    if model_type not in FAMILIES:
        raise ValueError(
            f"The language model is of the type '{model_type}', which has no LLaVA here; take a LLaMA, "
            f"Vicuna or Mistral checkpoint (one of the types {', '.join(sorted(FAMILIES))})."
        )
    family = FAMILIES[model_type]
    module = import_module(f"llava.model.language_model.{family.module}")
    return getattr(module, family.config), getattr(module, family.model)
