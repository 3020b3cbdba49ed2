"""Two processes under DDP, ZeRO-2 and ZeRO-3 train as one process does, and resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.integration.distributed_jobs import CLUSTER, TRAINING, each
from tests.integration.mini_run import losses, weights

LEAVES_OUT = {
    "zero2",
    "zero3",
    "zero2-lora",
    "zero3-lora",
}  # under DeepSpeed, and the language model is frozen


def kind(job: str) -> str:
    """The part of a job's name that one process has too."""
    return job.partition("-")[2] or "stage1"


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One process, the same eight samples a step."""
    from llava.train.train import train

    root = tmp_path_factory.mktemp("alone")
    for name in ("ddp", "zero3-stage2", "zero3-lora", "zero3-tiles"):
        train(argv=TRAINING[name].argv(tiny, root, kind(name)))
    return {name: root / kind(name) for name in TRAINING}


@pytest.mark.parametrize("job", each(TRAINING))
def test_two_processes_have_the_losses_of_one(alone: dict[str, Path], together: Path, job: str):
    expected = losses(alone[job])
    assert len(expected) == 6
    assert losses(together / f"{job}-in-one-go") == pytest.approx(expected, rel=1e-5)
    assert expected[-1] < expected[0]


@pytest.mark.parametrize("job", each(TRAINING))
def test_two_processes_save_the_weights_of_one(alone: dict[str, Path], together: Path, job: str):
    ours, theirs = weights(together / f"{job}-in-one-go"), weights(alone[job])
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("job", each(TRAINING))
def test_two_processes_resume_where_they_stopped(together: Path, job: str):
    whole, resumed = together / f"{job}-in-one-go", together / job
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-6)
    assert {path.name for path in resumed.glob("*checkpoint*")} == {"checkpoint-3", "checkpoint-6"}
    for key, tensor in weights(whole).items():
        torch.testing.assert_close(weights(resumed)[key], tensor, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("job", [job for job in each(TRAINING) if job.values[0] in LEAVES_OUT])
def test_checkpoint_leaves_the_frozen_language_model_out(tiny, together: Path, job: str):
    saved = sum(path.stat().st_size for path in (together / job / "checkpoint-3").rglob("*.pt"))
    frozen = (tiny.llama / "model.safetensors").stat().st_size
    assert saved < frozen


@pytest.mark.parametrize("job", each(CLUSTER))
def test_settings_of_the_cluster_train_and_resume(together: Path, job: str):
    whole, resumed = together / f"{job}-in-one-go", together / job
    assert len(losses(whole)) == 6
    assert losses(whole)[-1] < losses(whole)[0]
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-6)
    for key, tensor in weights(whole).items():
        assert tensor.dtype == torch.bfloat16, key
        torch.testing.assert_close(weights(resumed)[key], tensor, rtol=1e-5, atol=1e-7)
