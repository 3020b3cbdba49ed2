"""LLaVA on LLaMA and Vicuna."""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaModel

from llava.model.language_model.multimodal import MultimodalCausalLM, MultimodalConfig
from llava.model.llava_arch import LlavaMetaModel


class LlavaConfig(MultimodalConfig, LlamaConfig):
    """LLaMA's configuration with LLaVA's `mm_*` fields beside it."""

    model_type = "llava_llama"
    language_model_types = frozenset({"llama", "share4v"})


class LlavaLlamaModel(LlavaMetaModel, LlamaModel):
    """The decoder, with `vision_tower` and `mm_projector`."""

    config_class = LlavaConfig

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)  # ZeRO-3 cuts the parameters that a class has when its own __init__ ends


class LlavaLlamaForCausalLM(MultimodalCausalLM, LlamaForCausalLM):
    """LLaMA that sees."""

    config_class = LlavaConfig
    decoder_class = LlavaLlamaModel

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        self.pretraining_tp = config.pretraining_tp


AutoConfig.register(LlavaConfig.model_type, LlavaConfig)
AutoModelForCausalLM.register(LlavaConfig, LlavaLlamaForCausalLM)
