"""LoRA folders that one package trains and writes, read by the other, merged into their base."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from tests.conftest import TinyAssets


def ask(package, tiny: TinyAssets, folder: Path, base: Path | None) -> dict[str, Any]:
    return package(
        "answer",
        model_path=str(folder),
        model_base=None if base is None else str(base),
        image=str(min(Path(tiny.world.images).iterdir())),
        question="What colour is the ring?",
        conv_mode="vicuna_v1",
    )


@pytest.mark.parametrize("writer", ["upstream", "ours"])
def test_both_read_the_folder_alike(packages, lora_runs, tiny: TinyAssets, writer: str, tmp_path: Path):
    folder = lora_runs[writer].folder
    theirs = ask(packages["upstream"], tiny, folder, tiny.llama)
    ours = ask(packages["ours"], tiny, folder, None)  # the base is found
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert ours["loaded_dtype"] == theirs["loaded_dtype"] == "torch.float16"
    assert (ours["logits"] - theirs["logits"]).abs().max() <= 1e-5
    assert ours["tokens"].tolist() == theirs["tokens"].tolist()
    assert len(ours["tokens"]) == 12

    idle = shutil.copytree(folder, tmp_path / "idle")
    torch.save(without_effect(idle / "adapter_model.safetensors"), idle / "adapter_model.bin")
    (idle / "adapter_model.safetensors").unlink()
    other = ask(packages["ours"], tiny, idle, None)
    assert (ours["logits"] - other["logits"]).abs().max() > 0.05, "an adapter that is lost must show"


def test_both_read_the_merged_folder_alike(packages, lora_runs, tiny: TinyAssets, tmp_path: Path):
    from llava.model.consolidate import consolidate_ckpt

    folder = lora_runs["ours"].folder
    consolidate_ckpt(str(folder), tmp_path / "llava-merged")
    unmerged, ours, theirs = (
        ask(packages[name], tiny, path, None)
        for name, path in (
            ("ours", folder),
            ("ours", tmp_path / "llava-merged"),
            ("upstream", tmp_path / "llava-merged"),
        )
    )
    assert torch.equal(unmerged["logits"], ours["logits"])
    assert (ours["logits"] - theirs["logits"]).abs().max() <= 1e-5
    assert ours["tokens"].tolist() == theirs["tokens"].tolist()


def without_effect(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {name: torch.zeros_like(tensor) for name, tensor in load_file(path).items()}
