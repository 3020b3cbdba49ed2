"""Upstream's `llava.train.train`, unmodified and on its own transformers 4.37.2, through our launcher."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.mini_run import history, weights
from tests.upstream.environment import python_path
from tests.upstream.recipes import random_projector, stage_flags

ROOT = Path(__file__).parents[2]
STEPS, WARMUP = 44, 5  # 39 steps after calibration
RUNS = {"plain": None, "zero": ["--regap_weight", "0"], "on": []}
KEYS = {
    *("loss_lm", "loss_gap", "loss_weighted", "alpha", "centroid_l2", "pairwise_sq"),
    *("image_norm", "text_norm", "image_trace", "text_trace", "cosine"),
}


def run_upstream(folder: Path, jobs: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Do these jobs in one process of upstream's environment; of ours, only `regap_patch` can be found."""
    only = folder / "path"
    if not only.exists():
        only.mkdir()
        (only / "regap_patch").symlink_to(ROOT / "regap_patch")
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PYTHONPATH": str(only), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run(
        [str(python_path()), str(ROOT / "tests/upstream/launched_runs.py"), str(folder / "jobs.json")],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("upstream-launcher")


@pytest.fixture(scope="module")
def argv(tiny, root: Path):
    """The flags of a run. Upstream draws a projector before it seeds, so all start from one file."""
    torch.save(random_projector(64, 64), root / "first.bin")
    changes = {"learning_rate": "2e-3", "save_strategy": "steps"}

    def flags(name: str) -> list[str]:
        words = stage_flags(
            1,
            llama=tiny.llama,
            clip=tiny.clip,
            world=tiny.world,
            projector=root / "first.bin",
            output_path=root / f"llava-{name}",
            max_steps=STEPS,
            batch_size=4,
        )
        for flag, value in changes.items():
            words[words.index(f"--{flag}") + 1] = value
        return [*words, "--save_steps", "20"]

    return flags


@pytest.fixture(scope="module")
def trained(root: Path, argv) -> dict[str, Path]:
    done = run_upstream(root, [{"ours": ours, "argv": argv(name)} for name, ours in RUNS.items()])
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: root / f"llava-{name}" for name in RUNS}


def test_weight_zero_is_bit_equal_to_no_launcher(trained):
    plain, zero = history(trained["plain"]), history(trained["zero"])
    assert len(plain) == STEPS
    without = [{key: value for key, value in line.items() if not key.startswith("regap/")} for line in zero]
    assert without == plain
    ours, theirs = weights(trained["zero"]), weights(trained["plain"])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not (trained["plain"] / "regap.json").exists()


def test_the_gap_ends_lower(trained):
    zero, on = history(trained["zero"]), history(trained["on"])
    assert [line["step"] for line in on if line["regap/alpha"] > 0] == list(range(WARMUP + 1, STEPS + 1))
    assert [line["loss"] for line in on[:WARMUP]] == [line["loss"] for line in zero[:WARMUP]]
    assert on[-1]["regap/centroid_l2"] <= 0.6 * zero[-1]["regap/centroid_l2"]


def test_what_it_leaves(trained):
    lines = history(trained["on"])
    assert all({f"regap/{key}" for key in KEYS} < set(line) for line in lines)
    for line in lines:  # upstream's Trainer rounds its own loss to four digits
        total = line["regap/loss_lm"] + line["regap/loss_weighted"]
        assert line["loss"] == pytest.approx(total, abs=1e-4)
    for folder, step in ((trained["on"], STEPS), (trained["on"] / "checkpoint-20", 20)):
        left = json.loads((folder / "regap.json").read_text())
        assert (left["host"], left["step"]) == ("llava", step)
        assert left["alpha"] == lines[-1]["regap/alpha"]
        assert left["versions"]["transformers"] == "4.37.2"
    files = [
        {path.relative_to(trained[name]) for path in trained[name].rglob("*")} for name in ("plain", "on")
    ]
    assert {path.name for path in files[1] - files[0]} == {"regap.json"}
    assert files[0] <= files[1]


def test_the_projector_loads_where_the_patch_is_not_installed(trained, tiny, packages):
    """The worker's environment has no `regap_patch`; upstream's own loader reads the file."""
    asked = json.loads(tiny.world.questions.read_text().splitlines()[0])
    answers = {
        (reader, name): packages[reader](
            "answer",
            model_path=str(trained[name]),
            model_base=str(tiny.llama),
            image=str(tiny.world.images / asked["image"]),
            question=asked["text"],
            conv_mode="plain",
        )["logits"]
        for reader, name in (("upstream", "on"), ("ours", "on"), ("upstream", "plain"))
    }
    on, ours, plain = answers.values()
    assert (on - ours).abs().max() <= 1e-4
    assert (on - plain).abs().max() > 1e-2


@pytest.mark.full
def test_upstream_cannot_resume_stage_1_and_a_sentence_says_so(root: Path, argv, trained):
    """Its error and its exit status stay what they are without the launcher; the sentence stands before."""
    done = [
        run_upstream(root, [{"ours": ours, "argv": argv("plain")}])
        for ours in (None, ["--regap_weight", "0"])
    ]
    assert [run.returncode for run in done] == [1, 1]
    errors = [run.stderr.splitlines()[-1] for run in done]
    assert errors[0] == errors[1]
    assert "Can't find a valid checkpoint at" in errors[0]
    assert "cannot be resumed: it has no trainer_state.json" not in done[0].stderr
    assert "checkpoint-40 cannot be resumed: it has no trainer_state.json" in done[1].stderr
    assert "move the checkpoint folders away and start anew" in done[1].stderr
