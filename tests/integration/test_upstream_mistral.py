"""LLaVA on Mistral: the folders that one package writes, read by the other, and what both compute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.contract.tiny_mistral import ROPE_THETA, make_tiny_mistral
from tests.upstream.recipes import random_projector

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

NAMES = ("ours", "upstream")


@pytest.fixture(scope="module")
def written(packages, tiny: TinyAssets, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """One model from each package; upstream's loader reads the family off the folder's name."""
    root = tmp_path_factory.mktemp("mistral")
    base = make_tiny_mistral(root / "base", tiny.llama, sliding_window=1024)
    torch.save(random_projector(64, 64), root / "mm_projector.bin")
    asked = {"base": str(base), "clip": str(tiny.clip), "projector": str(root / "mm_projector.bin")}
    asked["family"] = "mistral"
    made = {}
    for name in NAMES:
        folder = root / f"llava-mistral-{name}"
        made[name] = packages[name]("family_operations.write_llava", **asked, output_path=str(folder))
        made[name]["folder"] = folder
    return made


@pytest.mark.parametrize("writer", NAMES)
def test_both_compute_the_same(packages, written, tiny: TinyAssets, writer: str):
    asked = {
        "model_path": str(written[writer]["folder"]),
        "model_base": None,
        "image": str(min(Path(tiny.world.images).iterdir())),
        "question": "What colour is the ring?",
        "conv_mode": "mistral_instruct",
    }
    ours, theirs = (packages[name]("answer", **asked) for name in NAMES)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert ours["logits"].shape == theirs["logits"].shape
    assert (ours["logits"] - theirs["logits"]).abs().max() <= 1e-5
    assert theirs["logits"].std() > 0.1, "logits without a shape would agree by themselves"
    assert ours["tokens"].tolist() == theirs["tokens"].tolist()


@pytest.mark.parametrize("writer", NAMES)
def test_both_read_the_same_configuration(packages, written, writer: str):
    folder = str(written[writer]["folder"])
    read = [packages[name]("family_operations.rotary_base", model_path=folder) for name in NAMES]
    expected = {"rope_theta": ROPE_THETA, "sliding_window": 1024, "model_type": "llava_mistral"}
    assert read == [expected, expected]


def test_files_hold_the_same_names(written):
    from safetensors import safe_open

    names = []
    for name in NAMES:
        with safe_open(written[name]["folder"] / "model.safetensors", framework="pt") as file:
            names.append(sorted(file.keys()))
        assert written[name]["class"] == "LlavaMistralForCausalLM"
    assert names[0] == names[1]
    theirs = written["upstream"]["config"]
    for own in ("_name_or_path", "transformers_version", "rms_norm_eps"):
        theirs.pop(own, None)
    assert {key: written["ours"]["config"].get(key, "absent") for key in theirs} == theirs
