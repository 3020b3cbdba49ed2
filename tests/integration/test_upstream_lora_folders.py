"""LoRA folders that one package trains and writes, read by the other, merged into their base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.upstream.recipes import random_projector, stage_flags

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

LORA = ["--lora_enable", "True", "--lora_r", "4", "--lora_alpha", "8", "--lora_dropout", "0"]


@pytest.fixture(scope="module")
def folders(packages, tiny: TinyAssets, tmp_path_factory) -> dict[str, Path]:
    """A short run of each, with a learning rate at which the adapters change the answers."""
    root = tmp_path_factory.mktemp("lora")
    torch.save(random_projector(64, 64), root / "projector.bin")
    made = {}
    for name in ("upstream", "ours"):
        made[name] = root / f"llava-{name}-lora"  # upstream's loader goes by these words
        flags = stage_flags(
            2,
            llama=tiny.llama,
            clip=tiny.clip,
            world=tiny.world,
            projector=root / "projector.bin",
            output_path=made[name],
            max_steps=6,
        )
        packages[name]("train", argv=[*flags, *LORA, "--learning_rate", "2e-2"])
    return made


def ask(package, tiny: TinyAssets, folder: Path, base: Path | None):
    return package(
        "answer",
        model_path=str(folder),
        model_base=None if base is None else str(base),
        image=str(min(Path(tiny.world.images).iterdir())),
        question="What colour is the ring?",
        conv_mode="vicuna_v1",
    )


@pytest.mark.parametrize("writer", ["upstream", "ours"])
def test_both_read_the_folder_alike(packages, folders, tiny: TinyAssets, writer: str, tmp_path: Path):
    theirs = ask(packages["upstream"], tiny, folders[writer], tiny.llama)
    ours = ask(packages["ours"], tiny, folders[writer], None)  # the base is found
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert ours["loaded_dtype"] == theirs["loaded_dtype"] == "torch.float16"
    assert (ours["logits"] - theirs["logits"]).abs().max() <= 1e-5
    assert ours["tokens"].tolist() == theirs["tokens"].tolist()
    assert len(ours["tokens"]) == 12

    without = shutil.copytree(folders[writer], tmp_path / "without")
    idle = {name: 0 * tensor for name, tensor in adapter(without).items()}
    torch.save(idle, without / "adapter_model.bin")
    (without / "adapter_model.safetensors").unlink()
    other = ask(packages["ours"], tiny, without, None)
    assert (ours["logits"] - other["logits"]).abs().max() > 0.05, "the adapter must matter"


def test_files_hold_the_same_names_shapes_and_types(folders):
    described = [
        {
            name: (tensor.shape, tensor.dtype)
            for tensors in (adapter(folder), beside(folder))
            for name, tensor in tensors.items()
        }
        for folder in folders.values()
    ]
    assert described[0] == described[1]
    assert any(name.startswith("base_model.model.model.mm_projector.0") for name in described[0])
    settings = [json.loads((folder / "adapter_config.json").read_text()) for folder in folders.values()]
    assert settings[1].keys() <= settings[0].keys(), "peft 0.10 refuses fields that it does not know"
    for name in ("r", "lora_alpha", "lora_dropout", "bias", "peft_type", "base_model_name_or_path"):
        assert settings[0][name] == settings[1][name]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def beside(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "non_lora_trainables.bin", weights_only=True)
