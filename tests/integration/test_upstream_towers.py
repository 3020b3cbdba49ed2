"""A vision tower that was trained, in the folders of either package, as the other one sees through it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.upstream.recipes import random_projector

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

NAMES = ("ours", "upstream")


@pytest.mark.parametrize("writer", NAMES)
def test_the_saved_tower_counts(packages, tiny: TinyAssets, tmp_path: Path, writer: str):
    """Upstream looks at it only where the configuration says that it was unfrozen, ours always."""
    torch.save(random_projector(64, 64), tmp_path / "mm_projector.bin")
    asked = {"base": str(tiny.llama), "clip": str(tiny.clip), "projector": str(tmp_path / "mm_projector.bin")}
    question = {
        "model_base": None,
        "image": str(min(Path(tiny.world.images).iterdir())),
        "question": "What colour is the ring?",
        "conv_mode": "vicuna_v1",
        "num_tokens": 4,
    }
    logits = {}
    for changed in (False, True):
        folder = str(tmp_path / f"llava-{changed}")
        packages[writer](
            "family_operations.write_llava", family="llama", **asked, output_path=folder, change_tower=changed
        )
        for reader in NAMES:
            logits[reader, changed] = packages[reader]("answer", model_path=folder, **question)["logits"]
    assert (logits["ours", True] - logits["upstream", True]).abs().max() <= 1e-5
    assert (logits["ours", False] - logits["upstream", False]).abs().max() <= 1e-5
    assert (logits["ours", True] - logits["ours", False]).abs().max() > 1e-2
