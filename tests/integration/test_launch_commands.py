"""The launcher as a process: started by python, torchrun and deepspeed, and what a failing script leaves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TinyAssets
from tests.integration.distributed_jobs import CONFIGS, needs_compiler
from tests.integration.mini_run import flags, history

ROOT = Path(__file__).parents[2]
OURS = ["--regap_calibration_steps", "2"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
DEEPSPEED = [sys.executable, str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", "2"]


def free_port() -> str:
    """One that nobody listens on now: two test sessions on a machine must not share deepspeed's default."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


STARTERS = {
    "python-module": [sys.executable, "-m", "regap_patch.run", *OURS, "-m", "llava.train.train"],
    "torchrun-script": [*TORCHRUN, "-m", "regap_patch.run", *OURS, "llava/train/train_mem.py"],
    "deepspeed-script": [
        *DEEPSPEED,
        "--master_port",
        free_port(),
        "--module",
        "regap_patch.run",
        *OURS,
        "llava/train/train.py",
    ],
}


def run(words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words,
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tiny: TinyAssets, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run of eight samples a step, in one process or in two, each made once."""
    root = tmp_path_factory.mktemp("started")

    def start(starter: str) -> Path:
        folder = root / starter
        if not folder.exists():
            batch = 8 if starter.startswith("python") else 4
            changes = {"max_steps": 4, "per_device_train_batch_size": batch, "gradient_accumulation_steps": 1}
            if starter.startswith("deepspeed"):
                changes["deepspeed"] = CONFIGS / "zero2.json"
            done = run([*STARTERS[starter], *flags(tiny, 1, folder, **changes)], DS_ACCELERATOR="cpu")
            assert done.returncode == 0, done.stderr[-3000:]
        return folder

    return start


@pytest.mark.parametrize(
    "starter", ["torchrun-script", pytest.param("deepspeed-script", marks=needs_compiler)]
)
def test_every_way_to_start_trains_alike(starter: str, trained):
    lines, alone = history(trained(starter)), history(trained("python-module"))
    assert [line["regap/alpha"] > 0 for line in alone] == [False, False, True, True]
    for line, expected in zip(lines, alone, strict=True):
        for key in ("loss", "regap/loss_gap", "regap/alpha"):
            assert line[key] == pytest.approx(expected[key], rel=1e-5)


FAILING = {
    "error": """
def inner():
    {}["key"]

def outer():
    try:
        inner()
    except KeyError as error:
        raise RuntimeError("of the script") from error

print("said", flush=True)
outer()
""",
    "status": "import sys\nprint('said')\nsys.exit(7)\n",
    "message": "import sys\nsys.exit('of the script')\n",
    "syntax": "print('said')\nthis is not Python\n",
    "signal": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n",
}


@pytest.mark.parametrize(
    "case", ["error", *(pytest.param(case, marks=pytest.mark.full) for case in list(FAILING)[1:])]
)
def test_a_failing_script_leaves_what_it_leaves_without_the_launcher(case: str, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(FAILING[case])
    plain = run([sys.executable, str(script)])
    launched = run([sys.executable, "-m", "regap_patch.run", str(script)])
    assert plain.returncode != 0
    assert launched.returncode == plain.returncode
    assert launched.stdout == plain.stdout
    # what transformers says when it is imported may stand before, nothing of ours
    assert launched.stderr.endswith(plain.stderr)
    assert launched.stderr.count("Traceback") == plain.stderr.count("Traceback")


def test_what_the_launcher_refuses_is_one_sentence(tmp_path: Path):
    script = tmp_path / "idle.py"
    script.write_text("print('nothing to train')\n")
    done = run([sys.executable, "-m", "regap_patch.run", str(script)])
    assert (done.returncode, done.stdout) == (1, "nothing to train\n")
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"python -m regap_patch.run: error: {script} ended without building")
    assert "Traceback" not in done.stderr
