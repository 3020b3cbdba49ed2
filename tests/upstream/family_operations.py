"""LLaVA on other families of language models, by both packages named `llava`; see `operations.py`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def write_mistral(*, base: str, clip: str, projector: str, output_path: str) -> dict[str, Any]:
    """A LLaVA on a Mistral, with a projector from a file, saved; its parameters' names."""
    import torch

    from llava.model.language_model.llava_mistral import LlavaMistralForCausalLM

    model = LlavaMistralForCausalLM.from_pretrained(base, torch_dtype=torch.float32)
    asked = SimpleNamespace(
        vision_tower=clip,
        mm_vision_select_layer=-2,
        mm_vision_select_feature="patch",
        mm_projector_type="mlp2x_gelu",
        mm_patch_merge_type="flat",
        pretrain_mm_mlp_adapter=projector,
    )
    model.get_model().initialize_vision_modules(asked)
    model.config.mm_use_im_start_end = model.config.mm_use_im_patch_token = False
    model.config.tokenizer_padding_side, model.config.tokenizer_model_max_length = "right", 2048
    model.save_pretrained(output_path)
    for path in Path(base).iterdir():
        if "token" in path.name:
            shutil.copyfile(path, Path(output_path) / path.name)
    return {
        "class": type(model).__name__,
        "config": json.loads((Path(output_path) / "config.json").read_text()),
    }


def rotary_base(*, model_path: str) -> dict[str, Any]:
    """What a reader makes of the two fields of the configuration that transformers renamed or defaults."""
    from llava.model.language_model.llava_mistral import LlavaMistralConfig

    config = LlavaMistralConfig.from_pretrained(model_path)
    theta = getattr(config, "rope_theta", None) or config.rope_parameters["rope_theta"]
    return {
        "rope_theta": float(theta),
        "sliding_window": config.sliding_window,
        "model_type": config.model_type,
    }
