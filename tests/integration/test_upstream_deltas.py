"""Deltas that one package makes, applied by the other: equal to the last bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from tests.conftest import TinyAssets


@pytest.fixture(scope="module")
def target(tiny: TinyAssets, tmp_path_factory) -> Path:
    """A LLaVA whose language model was trained on; its projector is linear, the only one that upstream's tool
    knows."""
    from types import SimpleNamespace

    from llava import LlavaLlamaForCausalLM

    model = LlavaLlamaForCausalLM.from_pretrained(tiny.llama, dtype=torch.float32)
    args = {"vision_tower": str(tiny.clip), "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch"}
    model.get_model().initialize_vision_modules(
        SimpleNamespace(**args, mm_projector_type="linear", pretrain_mm_mlp_adapter=None)
    )
    model.resize_token_embeddings(model.config.vocab_size + 1)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "vision_tower" not in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    folder = tmp_path_factory.mktemp("target") / "llava-tiny"
    model.half().save_pretrained(folder)
    # Upstream's tool takes the fast tokenizer, and its version cannot read what ours would write.
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(tiny.llama / name, folder)
    return folder


@pytest.mark.parametrize(("maker", "user"), [("upstream", "ours"), ("ours", "upstream")])
def test_a_delta_and_back(packages, tiny: TinyAssets, target: Path, tmp_path: Path, maker: str, user: str):
    deltas = {name: tmp_path / f"llava-delta-{name}" for name in packages}
    for name, folder in deltas.items():
        packages[name]("delta_operations.make", base=str(tiny.llama), target=str(target), delta=str(folder))
    compare(*(tensors(folder) for folder in deltas.values()))

    again = {name: tmp_path / f"llava-again-{name}" for name in (maker, user)}
    for name, folder in again.items():
        arguments = {"base": str(tiny.llama), "target": str(folder), "delta": str(deltas[maker])}
        packages[name]("delta_operations.apply", **arguments)
    compare(*(tensors(folder) for folder in again.values()))
    for name, tensor in tensors(again[user]).items():
        torch.testing.assert_close(tensor, tensors(target)[name], atol=1e-3, rtol=0)


def compare(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Upstream's has no tower, which is the published one."""
    ours, theirs = ({n: t for n, t in held.items() if "vision_tower" not in n} for held in (first, second))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
