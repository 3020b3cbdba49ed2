"""The flags of a short run on the tiny model, and what it leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

STAGES = {
    1: {"version": "plain", "tune_mm_mlp_adapter": True, "learning_rate": 2e-3},
    2: {
        "version": "v1",
        "image_aspect_ratio": "pad",
        "group_by_modality_length": True,
        "learning_rate": 1e-3,
        "mm_projector_lr": 2e-3,
    },
}
TILES = {
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": "[[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]",
    "mm_patch_merge_type": "spatial_unpad",
}
LORA = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8}  # of stage 2


def flags(tiny: TinyAssets, stage: int, output_dir: Path, **changes: Any) -> list[str]:
    """A command line; `changes` override, None takes a flag away. 64 samples are 8 steps an epoch."""
    chosen = {
        "model_name_or_path": tiny.llama,
        "vision_tower": tiny.clip,
        "data_path": tiny.world.pretrain_json if stage == 1 else tiny.world.finetune_json,
        "image_folder": tiny.world.images,
        "output_dir": output_dir,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_use_im_patch_token": False,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 4,
        "save_strategy": "no",
        "weight_decay": 0.1,
        "warmup_ratio": 0.1,
        "lr_scheduler_type": "cosine",
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": "none",
        "use_cpu": True,
        **STAGES[stage],
        **changes,
    }
    return [word for name, value in chosen.items() if value is not None for word in (f"--{name}", str(value))]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a final folder of either stage, or of LoRA."""
    if (folder / "mm_projector.bin").is_file():
        return torch.load(folder / "mm_projector.bin", weights_only=True)
    from safetensors.torch import load_file

    if (folder / "adapter_config.json").is_file():
        beside = torch.load(folder / "non_lora_trainables.bin", weights_only=True)
        return load_file(folder / "adapter_model.safetensors") | beside
    return load_file(folder / "model.safetensors")


def digest(folder: Path) -> str:
    """SHA-256 over names and bytes of the tensors."""
    total = hashlib.sha256()
    for name, tensor in sorted(weights(folder).items()):
        total.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


def history(folder: Path) -> list[dict[str, float]]:
    """The training lines of the log, one a step."""
    lines = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [line for line in lines if "loss" in line]


def losses(folder: Path) -> list[float]:
    """The logged loss of every step."""
    return [line["loss"] for line in history(folder)]


def launch(ours: str, argv: list[str]) -> None:
    """Our training module through the launcher, in this process, with the launcher's own flags."""
    from regap_patch.train.launch import main

    main([*ours.split(), "-m", "llava.train.train", *argv])


@contextmanager
def forward_without_kwargs() -> Iterator[None]:
    """LLaVA as it was before models were told `num_items_in_batch`: each pass takes the mean of its own."""
    from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM

    inner = LlavaLlamaForCausalLM.forward

    def forward(
        self: Any,
        input_ids: Any,
        attention_mask: Any = None,
        labels: Any = None,
        images: Any = None,
        image_sizes: Any = None,
    ):
        return inner(self, input_ids, attention_mask, labels=labels, images=images, image_sizes=image_sizes)

    with mock.patch.object(LlavaLlamaForCausalLM, "forward", forward):
        yield


class _Prepared(Exception):
    """Carries the trainer out of `train()`; nothing went wrong."""


def prepared(argv: list[str]) -> Any:
    """The trainer of a run that has come to its first step."""
    from llava.train.llava_trainer import LLaVATrainer
    from llava.train.train import train

    def stop(trainer: Any, *args: Any, **kwargs: Any) -> None:
        raise _Prepared(trainer)

    with mock.patch.object(LLaVATrainer, "train", stop):
        try:
            train(argv=argv)
        except _Prepared as stopped:
            return stopped.args[0]
    raise AssertionError("the run did not come to its first step")
