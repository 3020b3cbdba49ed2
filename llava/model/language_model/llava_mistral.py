"""LLaVA on Mistral."""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig, MistralForCausalLM, MistralModel

from llava.model.language_model.multimodal import MultimodalCausalLM, MultimodalConfig
from llava.model.llava_arch import LlavaMetaModel


class LlavaMistralConfig(MultimodalConfig, MistralConfig):
    """Mistral's configuration with LLaVA's `mm_*` fields beside it."""

    model_type = "llava_mistral"
    language_model_types = frozenset({"mistral"})


class LlavaMistralModel(LlavaMetaModel, MistralModel):
    """The decoder, with `vision_tower` and `mm_projector`."""

    config_class = LlavaMistralConfig

    def __init__(self, config: LlavaMistralConfig) -> None:
        super().__init__(config)  # ZeRO-3 cuts the parameters that a class has when its own __init__ ends


class LlavaMistralForCausalLM(MultimodalCausalLM, MistralForCausalLM):
    """Mistral that sees."""

    config_class = LlavaMistralConfig
    decoder_class = LlavaMistralModel


AutoConfig.register(LlavaMistralConfig.model_type, LlavaMistralConfig)
AutoModelForCausalLM.register(LlavaMistralConfig, LlavaMistralForCausalLM)
