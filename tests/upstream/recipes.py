"""The flags with which both packages are trained when they are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def stage_flags(
    stage: int,
    *,
    llama: Path,
    clip: Path,
    world: Any,
    projector: Path,
    output_path: Path,
    max_steps: int = 20,
    batch_size: int = 3,
) -> list[str]:
    """A short run of stage 1 (the projector alone) or stage 2 (all but the tower), in float32 on the CPU.

    The learning rates and the weight decay are high so that, within these few steps, a parameter in the wrong
    optimizer group or a step of the schedule too many shows in the losses.
    """
    common = {
        "model_name_or_path": llama,
        "vision_tower": clip,
        "image_folder": world.images,
        "pretrain_mm_mlp_adapter": projector,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "output_dir": output_path,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": 1,
        "max_steps": max_steps,
        "save_strategy": "no",
        "weight_decay": 1.0,
        "warmup_ratio": 0.1,
        "lr_scheduler_type": "cosine",
        "logging_steps": 1,
        "model_max_length": 512,
        "evaluation_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "tf32": False,
    }
    by_stage = {
        1: {
            "version": "plain",
            "data_path": world.pretrain_json,
            "tune_mm_mlp_adapter": True,
            "learning_rate": 2e-2,
        },
        2: {
            "version": "v1",
            "data_path": world.finetune_json,
            "image_aspect_ratio": "pad",
            "learning_rate": 1e-3,
            "mm_projector_lr": 2e-3,
        },
    }
    flags = common | by_stage[stage]
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def lora_flags(**common: Any) -> list[str]:
    """Stage 2 with adapters in place of the language model; the arguments are those of `stage_flags`."""
    lora = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "learning_rate": 3e-3}
    return [
        *stage_flags(2, **common),
        *(word for name, value in lora.items() for word in (f"--{name}", str(value))),
    ]


def random_projector(vision_width: int, width: int) -> dict[str, torch.Tensor]:
    """An `mlp2x_gelu` projector under the names of `mm_projector.bin`, for both to start from."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "0.weight": (width, vision_width),
        "2.weight": (width, width),
        "0.bias": (width,),
        "2.bias": (width,),
    }
    return {
        f"model.mm_projector.{name}": torch.randn(shape, generator=generator) / width**0.5
        for name, shape in shapes.items()
    }
