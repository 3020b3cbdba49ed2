"""Two processes under DDP, ZeRO-2 and ZeRO-3 train as one process does, and resume."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.integration.mini_run import flags, losses, weights

ROOT = Path(__file__).parents[2]
RUN = {
    "max_steps": 6,
    "save_strategy": "steps",
    "save_steps": 3,
    "group_by_modality_length": True,
    "mm_projector_lr": 1e-3,
}
CONFIGS = ROOT / "deepspeed_configs"
CASES = {  # stage, DeepSpeed configuration
    "ddp": (1, None),
    "zero2": (1, CONFIGS / "zero2.json"),
    "zero3": (1, CONFIGS / "zero3.json"),
    "zero3-stage2": (2, CONFIGS / "zero3.json"),
}
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="DeepSpeed compiles an operator: apt-get install g++"
)
EACH = [pytest.param(name, marks=[needs_compiler] * bool(config)) for name, (_, config) in CASES.items()]


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One process, the same eight samples a step."""
    from llava.train.train import train

    root = tmp_path_factory.mktemp("alone")
    for stage in (1, 2):
        train(argv=flags(tiny, stage, root / str(stage), **RUN))
    return {name: root / str(stage) for name, (stage, _) in CASES.items()}


@pytest.fixture(scope="module")
def together(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes with half of each batch: every case, one launch."""
    root = tmp_path_factory.mktemp("together")
    compiler = shutil.which("g++") is not None
    jobs = {
        name: flags(tiny, stage, root / name, **RUN, per_device_train_batch_size=2, deepspeed=config)
        for name, (stage, config) in CASES.items()
        if compiler or config is None
    }
    (root / "jobs.json").write_text(json.dumps(jobs))
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    driver = str(ROOT / "tests/integration/distributed_driver.py")
    with (root / "log.txt").open("w") as log:
        done = subprocess.run(
            [*launcher, driver, str(root / "jobs.json")],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=500,
            check=False,
        )
    assert done.returncode == 0, (root / "log.txt").read_text()
    return root


@pytest.mark.parametrize("name", EACH)
def test_two_processes_have_the_losses_of_one(alone: dict[str, Path], together: Path, name: str):
    expected = losses(alone[name])
    assert len(expected) == 6
    assert losses(together / f"{name}-in-one-go") == pytest.approx(expected, rel=1e-5)
    assert expected[-1] < expected[0]


@pytest.mark.parametrize("name", EACH)
def test_two_processes_save_the_weights_of_one(alone: dict[str, Path], together: Path, name: str):
    ours, theirs = weights(together / f"{name}-in-one-go"), weights(alone[name])
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", EACH)
def test_two_processes_resume_where_they_stopped(together: Path, name: str):
    whole, resumed = together / f"{name}-in-one-go", together / name
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-6)
    assert {path.name for path in resumed.glob("*checkpoint*")} == {"checkpoint-3", "checkpoint-6"}
    for key, tensor in weights(whole).items():
        torch.testing.assert_close(weights(resumed)[key], tensor, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", EACH[1:3])
def test_checkpoint_leaves_the_frozen_language_model_out(tiny, together: Path, name: str):
    saved = sum(path.stat().st_size for path in (together / name / "checkpoint-3").rglob("*.pt"))
    frozen = (tiny.llama / "model.safetensors").stat().st_size
    assert saved < frozen
