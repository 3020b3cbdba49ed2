"""What many tests share, made once.

The peer (upstream LLaVA in an environment of its own), the runs that ours is compared with, and all runs of
two processes.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch

from tests.integration.distributed_jobs import CLUSTER, REGAP, TRAINING
from tests.upstream.peer import Peer
from tests.upstream.recipes import lora_flags, random_projector, stage_flags

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

ROOT = Path(__file__).parents[2]


class Run(NamedTuple):
    """What a training run of one of the two left; the folder's name holds `llava`, which upstream's loader
    asks for."""

    folder: Path
    losses: list[float]


@pytest.fixture(scope="session")
def upstream() -> Iterator[Peer]:
    with Peer() as peer:
        yield peer


@pytest.fixture(scope="session")
def packages(upstream: Peer) -> dict[str, Callable[..., Any]]:
    """The two packages named `llava`, each as a function `(operation, **arguments) -> result`."""

    def ours(operation: str, **arguments: Any) -> Any:
        module, _, name = operation.rpartition(".")
        return getattr(importlib.import_module(f"tests.upstream.{module or 'operations'}"), name)(**arguments)

    return {"ours": ours, "upstream": upstream.call}


@pytest.fixture(scope="session")
def runs(
    packages: dict[str, Callable[..., Any]], tiny: TinyAssets, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, int], Run]:
    """Both stages, 20 steps, by both; each stage starts from one projector file for the two."""
    root = tmp_path_factory.mktemp("runs")
    projector = {1: root / "first.bin", 2: root / "llava-upstream-stage1" / "mm_projector.bin"}
    torch.save(random_projector(64, 64), projector[1])
    made = {}
    for stage in (1, 2):
        for name in ("upstream", "ours"):
            folder = root / f"llava-{name}-stage{stage}"
            flags = stage_flags(
                stage,
                llama=tiny.llama,
                clip=tiny.clip,
                world=tiny.world,
                projector=projector[stage],
                output_path=folder,
            )
            made[name, stage] = Run(folder, packages[name]("train", argv=flags)["losses"])
    return made


def drive(root: Path, jobs: dict[str, dict[str, Any]], *, processes: int) -> None:
    """Run the jobs one after the other in one group of processes; each writes to `root / name`."""
    (root / "jobs.json").write_text(json.dumps(jobs))
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    driver = str(ROOT / "tests/integration/distributed_driver.py")
    with (root / "log.txt").open("w") as log:
        done = subprocess.run(
            [sys.executable, *launcher, driver, str(root / "jobs.json")],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=800,
            check=False,
        )
    assert done.returncode == 0, (root / "log.txt").read_text()


class LoraRun(NamedTuple):
    """What a LoRA run of one of the two left, and the names of the weights that it trained."""

    folder: Path
    losses: list[float]
    adapted: list[str]
    beside: list[str]


@pytest.fixture(scope="session")
def lora_runs(
    packages: dict[str, Callable[..., Any]], tiny: TinyAssets, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, LoraRun]:
    """Stage 2 as LoRA, 20 steps, by both, from one projector and one set of adapters."""
    root = tmp_path_factory.mktemp("lora")
    torch.save(random_projector(64, 64), root / "first.bin")
    made = {}
    for name in ("upstream", "ours"):
        folder = root / f"llava-{name}-lora"
        flags = lora_flags(
            llama=tiny.llama,
            clip=tiny.clip,
            world=tiny.world,
            projector=root / "first.bin",
            output_path=folder,
        )
        made[name] = LoraRun(folder, **packages[name]("lora_operations.train", argv=flags))
    return made


@pytest.fixture(scope="session")
def together(
    request: pytest.FixtureRequest, tiny: TinyAssets, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two processes with half of each batch: one launch for every `job` that the chosen tests ask for."""
    root = tmp_path_factory.mktemp("together")
    asked = {
        getattr(item, "callspec", None) and item.callspec.params.get("job") for item in request.session.items
    }
    compiler = shutil.which("g++") is not None
    jobs = {
        name: job.driven(tiny, root, name)
        for name, job in {**TRAINING, **CLUSTER, **REGAP}.items()
        if name in asked and (compiler or not job.zero)
    }
    drive(root, jobs, processes=2)
    return root
