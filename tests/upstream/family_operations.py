"""LLaVA on other families of language models, by both packages named `llava`; see `operations.py`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def write_llava(
    *, family: str, base: str, clip: str, projector: str, output_path: str, change_tower: bool = False
) -> dict[str, Any]:
    """A LLaVA on a `llama` or a `mistral`, with a projector from a file, saved; its class and configuration.

    With `change_tower` the tower is no longer the published one, and the configuration says, as that of a
    run with an unfrozen tower does, that it is the saved one that counts.
    """
    import importlib

    import torch

    module = importlib.import_module(f"llava.model.language_model.llava_{family}")
    model_class = getattr(module, f"Llava{family.capitalize()}ForCausalLM")
    model = model_class.from_pretrained(base, torch_dtype=torch.float32)
    asked = SimpleNamespace(
        vision_tower=clip,
        mm_vision_select_layer=-2,
        mm_vision_select_feature="patch",
        mm_projector_type="mlp2x_gelu",
        mm_patch_merge_type="flat",
        pretrain_mm_mlp_adapter=projector,
    )
    model.get_model().initialize_vision_modules(asked)
    config = model.config
    config.mm_use_im_start_end = config.mm_use_im_patch_token = False
    config.tokenizer_padding_side, config.tokenizer_model_max_length = "right", 2048
    config.unfreeze_mm_vision_tower = change_tower
    if change_tower:
        with torch.no_grad():
            for name, parameter in model.get_vision_tower().named_parameters():
                if name.endswith("layers.0.mlp.fc2.bias"):
                    parameter.copy_(torch.linspace(-1, 1, len(parameter)))
    model.save_pretrained(output_path)
    for path in Path(base).iterdir():
        if "token" in path.name:
            shutil.copyfile(path, Path(output_path) / path.name)
    written = json.loads((Path(output_path) / "config.json").read_text())
    return {"class": type(model).__name__, "config": written}


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
