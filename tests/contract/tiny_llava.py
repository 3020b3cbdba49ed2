"""A LLaVA of random weights, made from the tiny LLaMA and the tiny tower."""

from __future__ import annotations

from types import SimpleNamespace

import torch


def model_args(tiny, **changed):
    defaults = {
        "vision_tower": str(tiny.clip),
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "flat",
        "pretrain_mm_mlp_adapter": None,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "tune_mm_mlp_adapter": False,
    }
    return SimpleNamespace(**{**defaults, **changed})


def make_model(tiny, **changed):
    from llava import LlavaLlamaForCausalLM

    torch.manual_seed(0)
    model = LlavaLlamaForCausalLM.from_pretrained(str(tiny.llama), dtype=torch.float32)
    model.get_model().initialize_vision_modules(model_args(tiny, **changed))
    model.config.mm_use_im_patch_token = model.config.mm_use_im_start_end = False
    return model
