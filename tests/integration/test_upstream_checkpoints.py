"""The folders that one package writes, read by the other: both stages, both directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

FOLDERS = [(writer, stage) for writer in ("ours", "upstream") for stage in (1, 2)]


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: f"{folder[0]}-stage{folder[1]}")
def answers(
    request: pytest.FixtureRequest, runs, packages, tiny: TinyAssets
) -> dict[str, dict[str, torch.Tensor]]:
    """What each package makes of one folder, with the tokenizer and the image processor that it finds
    there."""
    writer, stage = request.param
    asked = {
        "model_path": str(runs[writer, stage].folder),
        "model_base": str(tiny.llama) if stage == 1 else None,
        "image": str(min(Path(tiny.world.images).iterdir())),
        "question": "What colour is the ring?",
        "conv_mode": "plain" if stage == 1 else "vicuna_v1",
    }
    return {reader: packages[reader]("answer", **asked) for reader in ("ours", "upstream")}


def test_both_read_the_folder_alike(answers):
    ours, theirs = answers["ours"], answers["upstream"]
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert torch.equal(ours["images"], theirs["images"])
    assert ours["loaded_dtype"] == theirs["loaded_dtype"] == "torch.float16"
    assert ours["logits"].shape == theirs["logits"].shape
    assert (ours["logits"] - theirs["logits"]).abs().max() <= 1e-5
    assert theirs["logits"].std() > 0.1, "logits without a shape would agree by themselves"


def test_both_answer_alike(answers):
    assert answers["ours"]["tokens"].tolist() == answers["upstream"]["tokens"].tolist()
    assert len(answers["ours"]["tokens"]) == 12


@pytest.mark.parametrize("stage", [1, 2])
def test_files_hold_the_same_names_shapes_and_types(runs, stage: int):
    ours, theirs = (runs[name, stage].folder for name in ("ours", "upstream"))
    described = [
        {name: (tensor.shape, tensor.dtype) for name, tensor in tensors(folder).items()}
        for folder in (ours, theirs)
    ]
    assert described[0] == described[1]
    names = [{path.name for path in folder.iterdir()} for folder in (ours, theirs)]
    # Transformers 5 no longer writes this file, 4.37 can do without it: tokenizer_config.json says the same.
    assert names[1] - names[0] <= {"special_tokens_map.json"}


@pytest.mark.parametrize("stage", [1, 2])
def test_config_says_what_upstreams_says(runs, stage: int):
    folders = (runs[name, stage].folder for name in ("ours", "upstream"))
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in folders)
    for own in ("_name_or_path", "transformers_version"):
        theirs.pop(own, None)
    assert {key: ours.get(key, "absent") for key in theirs} == theirs


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    if (folder / "mm_projector.bin").exists():
        return torch.load(folder / "mm_projector.bin", weights_only=True)
    return load_file(folder / "model.safetensors")
