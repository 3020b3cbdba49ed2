"""A run that is killed again and again ends with the very tensors of a run that was left alone."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from tests.integration.killed_run import run_module
from tests.integration.mini_run import LORA, digest, flags, losses

STEPS, SAVE_EVERY = 13, 3  # an epoch has 8 steps: checkpoints lie within the first, and within the second


def command_line(tiny, stage: int, changes: dict, output_dir: Path) -> list[str]:
    return flags(
        tiny,
        stage,
        output_dir,
        max_steps=STEPS,
        save_strategy="steps",
        save_steps=SAVE_EVERY,
        save_total_limit=2,
        group_by_modality_length=True,
        **changes,
    )


def checkpoints(output_dir: Path) -> set[str]:
    return {path.name for path in output_dir.iterdir() if "checkpoint" in path.name}


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        pytest.param(1, {}, id="1"),
        pytest.param(2, {}, id="2"),
        pytest.param(2, LORA, id="lora", marks=pytest.mark.full),
        pytest.param(2, LORA | {"bits": 4}, id="qlora", marks=pytest.mark.full),
    ],
)
def test_killed_run_ends_like_one_left_alone(tiny, tmp_path: Path, stage: int, changes: dict, monkeypatch):
    from llava.train.train import train

    monkeypatch.chdir(tmp_path)  # the same line means the same --output_dir
    draw = random.Random(2505 + stage)
    killed_step = draw.choice([step for step in range(SAVE_EVERY + 1, 9) if step % SAVE_EVERY])
    killed_save = draw.choice([9, 12])
    folder = Path("killed")
    line = ["llava.train.train", *command_line(tiny, stage, changes, folder)]

    run_module(line, f"step:{killed_step}")
    last = killed_step - killed_step % SAVE_EVERY
    assert f"checkpoint-{last}" in checkpoints(folder)
    assert not any(name.startswith("tmp-") for name in checkpoints(folder))

    said = run_module(line, f"save:{killed_save}")
    assert f"Resuming from {folder}/checkpoint-{last}, written after step {last}." in said
    assert f"tmp-checkpoint-{killed_save}" in checkpoints(folder)
    assert f"checkpoint-{killed_save}" not in checkpoints(folder)

    last = killed_save - SAVE_EVERY
    torn = folder / "checkpoint-100"
    shutil.copytree(folder / f"checkpoint-{last}", torn)
    os.truncate(torn / "optimizer.pt", 1000)
    said = run_module(line)
    assert f"Ignoring {torn}: optimizer.pt has 1000 bytes" in said
    assert f"Resuming from {folder}/checkpoint-{last}, written after step {last}." in said
    assert checkpoints(folder) == {"checkpoint-12", f"checkpoint-{STEPS}", torn.name}

    torch.set_num_threads(1)
    alone = Path("alone")
    train(argv=command_line(tiny, stage, changes, alone))
    assert losses(folder) == losses(alone)
    assert len(losses(alone)) == STEPS
    assert digest(folder) == digest(alone)
