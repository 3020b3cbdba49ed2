"""The DeepSpeed configurations leave the optimizer to the flags: the projector keeps its learning rate."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.integration.mini_run import flags, weights

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "deepspeed_configs").glob("*.json"))
NAMES = [path.stem for path in CONFIGS]
RATE, DECAY = 1e-3, 0.1
RUN = {
    **{"max_steps": 2, "learning_rate": RATE, "weight_decay": DECAY, "gradient_accumulation_steps": 1},
    **{"lr_scheduler_type": "constant", "warmup_ratio": None},
}


def test_no_configuration_names_an_optimizer_or_a_scheduler():
    assert NAMES == ["zero2", "zero3", "zero3_offload"]
    for path in CONFIGS:
        config = json.loads(path.read_text())
        assert not {"optimizer", "scheduler"} & config.keys(), path.name
        assert config["zero_optimization"]["stage"] == int(path.stem[4])
        assert config["train_micro_batch_size_per_gpu"] == config["gradient_accumulation_steps"] == "auto"


def random_projector(path: Path) -> dict[str, torch.Tensor]:
    """An `mm_projector.bin` of the tiny model."""
    shapes = {"0.weight": (64, 64), "0.bias": (64,), "2.weight": (64, 64), "2.bias": (64,)}
    drawn = {f"model.mm_projector.{name}": 0.1 * torch.randn(shape) for name, shape in shapes.items()}
    torch.save(drawn, path)
    return drawn


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage 2 under each configuration: `apart` gives the projector a rate of its own, `still` the rate 0."""
    if shutil.which("g++") is None:
        pytest.skip("DeepSpeed compiles an operator: apt-get install g++")
    root = tmp_path_factory.mktemp("rates")
    random_projector(root / "start.bin")
    jobs = {}
    for path in CONFIGS:
        for kind, rate in (("apart", 5 * RATE), ("still", 0.0)):
            own = {"mm_projector_lr": rate, "pretrain_mm_mlp_adapter": root / "start.bin", "deepspeed": path}
            jobs[f"{path.stem}-{kind}"] = flags(tiny, 2, root / f"{path.stem}-{kind}", **RUN, **own)
    (root / "jobs.json").write_text(json.dumps(jobs))
    here = {
        **{"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"},
        **{"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1"]
    driver = [str(ROOT / "tests/integration/learning_rate_driver.py"), "jobs.json", "seen.json"]
    with (root / "log.txt").open("w") as log:
        done = subprocess.run(
            [*launcher, *driver],
            env=os.environ | here,
            cwd=root,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=500,
        )
    assert done.returncode == 0, (root / "log.txt").read_text()
    return root


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_projector_keeps_its_learning_rate(runs: Path, name: str):
    seen = json.loads((runs / "seen.json").read_text())[f"{name}-apart"]
    assert "Adam" in seen["optimizer"]
    expected = [(rate, decay) for rate in (RATE, 5 * RATE) for decay in (DECAY, 0.0)]
    assert [tuple(group) for group in seen["groups"]] == expected


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_that_rate_is_the_one_that_moves_it(tiny, runs: Path, name: str):
    """Adam's first steps are as long as the rate; at the rate 0 the projector stays what the file held."""
    from safetensors.torch import load_file

    start = torch.load(runs / "start.bin", weights_only=True)
    apart, still = weights(runs / f"{name}-apart"), weights(runs / f"{name}-still")
    for key, value in start.items():
        assert torch.equal(still[key], value), key
    biases = [key for key in start if key.endswith("bias")]
    moved = max(float((apart[key] - start[key]).abs().max()) for key in biases)
    assert 1.5 * 5 * RATE < moved < 2.1 * 5 * RATE
    words = load_file(tiny.llama / "model.safetensors")["lm_head.weight"]
    assert float((still["lm_head.weight"] - words).abs().max()) < 2.5 * RATE
    assert not torch.equal(still["lm_head.weight"], words)
