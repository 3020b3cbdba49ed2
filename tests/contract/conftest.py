"""A tiny LLaVA in memory, and the folders that both training stages leave of it."""

from __future__ import annotations

import pytest
import torch
from tiny_llava import make_model


@pytest.fixture(scope="module")
def llava_model(tiny):
    return make_model(tiny).eval()


@pytest.fixture(scope="module")
def llava_folder(llava_model, tiny, tmp_path_factory):
    """As stage 2 leaves it."""
    path = tmp_path_factory.mktemp("llava") / "full"
    llava_model.save_pretrained(path)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        (path / name).write_bytes((tiny.llama / name).read_bytes())
    return path


@pytest.fixture(scope="module")
def stage_one_folder(llava_model, tmp_path_factory):
    """As stage 1 leaves it."""
    path = tmp_path_factory.mktemp("llava") / "projector"
    llava_model.config.save_pretrained(path)
    tensors = {
        f"model.mm_projector.{key}": value
        for key, value in llava_model.model.mm_projector.state_dict().items()
    }
    torch.save(tensors, path / "mm_projector.bin")
    return path
