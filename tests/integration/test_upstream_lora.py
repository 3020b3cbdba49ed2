"""LoRA training against upstream's, with the same first adapters in both, and the folder that it leaves."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llava.train.lora_files import published_name
from tests.integration.mini_run import flags, prepared, weights

TOLERANCE = 1e-5  # the issue asks for 1e-3


def test_every_step_has_upstreams_loss(lora_runs):
    ours, theirs = lora_runs["ours"], lora_runs["upstream"]
    assert len(ours.losses) == len(theirs.losses) == 20
    assert ours.losses == pytest.approx(theirs.losses, rel=TOLERANCE)
    learned = statistics.mean(theirs.losses[:5]) - statistics.mean(theirs.losses[-5:])
    assert learned > 50 * TOLERANCE * theirs.losses[0]


def test_the_same_weights_train(lora_runs):
    ours, theirs = lora_runs["ours"], lora_runs["upstream"]
    assert ours.adapted == theirs.adapted
    assert ours.beside == theirs.beside


def test_the_folder_has_upstreams_names_and_weights(lora_runs):
    ours, theirs = lora_runs["ours"].folder, lora_runs["upstream"].folder
    for read, name in ((load_file, "adapter_model.safetensors"), (torch.load, "non_lora_trainables.bin")):
        held, expected = read(ours / name), read(theirs / name)
        assert held.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(held[key], tensor, rtol=1e-2, atol=1e-4)


def test_adapter_config_has_fields_of_upstreams_peft(lora_runs):
    ours, theirs = (
        json.loads((lora_runs[name].folder / "adapter_config.json").read_text())
        for name in ("ours", "upstream")
    )
    apart = {"target_modules"}  # last parts of names there, full paths here
    assert {name: theirs.get(name) for name in ours.keys() - apart} == {
        name: setting for name, setting in ours.items() if name not in apart
    }


def test_training_goes_on_from_upstreams_adapter(lora_runs, tiny, tmp_path: Path):
    theirs = lora_runs["upstream"].folder
    lora = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "lora_weight_path": theirs}
    model = prepared(flags(tiny, 2, tmp_path, **lora)).model
    ours = {published_name(name): param for name, param in model.named_parameters()}
    assert weights(theirs)
    for name, tensor in weights(theirs).items():
        assert torch.equal(ours[name].detach(), tensor), name
