"""A run with the patch, killed while alpha is measured and again after it, ends like one left alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from regap_patch.train.launch import main
from tests.integration.killed_run import ROOT, run_module
from tests.integration.mini_run import digest, flags, history

STEPS, SAVE_EVERY, CALIBRATION = 16, 3, 7
OURS = ["--regap_calibration_steps", str(CALIBRATION)]
DURING, AFTER = [5, 6], [11, 12, 14, 15]  # in the middle of these steps, none right behind a checkpoint


def our_llava(tiny, output_dir: Path) -> list[str]:
    saving = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": SAVE_EVERY}
    return ["-m", "llava.train.train", *flags(tiny, 1, output_dir, **saving)]


def transformers_llava(tiny, output_dir: Path) -> list[str]:
    script = str(ROOT / "tests/integration/hf_training.py")
    return [script, str(output_dir), str(STEPS), str(SAVE_EVERY)]


@pytest.mark.parametrize("host", [our_llava, transformers_llava])
def test_killed_run_measures_the_same_alpha(
    host: Callable[..., list[str]], tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # the same line means the same output folder
    draw = random.Random(host.__name__)
    killed, alone = Path("killed"), Path("alone")
    line = ["regap_patch.run", *OURS, *host(tiny, killed)]

    first, second = draw.choice(DURING), draw.choice(AFTER)
    run_module(line, f"step:{first}")
    assert at_last_checkpoint(killed)["alpha"] is None
    assert at_last_checkpoint(killed)["seen"] == (first - 1) // SAVE_EVERY * SAVE_EVERY
    run_module(line, f"step:{second}")
    run_module(line)

    torch.set_num_threads(1)
    main([*OURS, *host(tiny, alone)])
    assert len(history(alone)) == STEPS
    assert history(killed) == history(alone)
    assert digest(killed) == digest(alone)
    left = [json.loads((folder / "regap.json").read_text()) for folder in (killed, alone)]
    assert left[0] == left[1]
    assert left[0]["calibration"]["seen"] == CALIBRATION
    assert left[0]["alpha"] == history(alone)[-1]["regap/alpha"] > 0


def at_last_checkpoint(folder: Path) -> dict:
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return json.loads((last / "regap.json").read_text())["calibration"]
