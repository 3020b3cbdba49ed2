"""The laptop twins of LLaVA's scripts plan what the training code takes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts" / "mini"


def call(name: str, *flags: str, **knobs: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable} | knobs
    command = ["bash", str(SCRIPTS / name), *flags]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def planned(name: str, *flags: str, **knobs: str) -> list[str]:
    done = call(name, *flags, DRY_RUN="1", **knobs)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


@pytest.mark.parametrize(
    ("name", "regap", "loss"),
    [
        ("pretrain.sh", "on", "centroid_l2"),
        ("pretrain.sh", "off", "off"),
        ("finetune.sh", "on", "off"),
        ("finetune_lora.sh", "on", "off"),
        ("finetune_qlora.sh", "off", "off"),
    ],
)
def test_planned_command_is_understood(tmp_path: Path, name: str, regap: str, loss: str):
    from llava.train.arguments import parse_arguments
    from regap_patch.train.launch import parse

    runs = str(tmp_path / "with space")
    words = planned(name, "--max_steps", "7", REGAP=regap, RUNS=runs)
    assert words[:3] == [sys.executable, "-m", "regap_patch.run"]
    launch = parse(words[3:])
    assert (launch.target, launch.is_module, launch.config.loss) == ("llava.train.train", True, loss)
    model, data, training = parse_arguments(list(launch.argv))
    stage_one = name == "pretrain.sh"
    assert model.version == ("plain" if stage_one else "v1")
    assert model.tune_mm_mlp_adapter is stage_one
    assert model.mm_vision_select_layer == -2
    assert (data.image_folder, training.max_steps) == (f"{runs}/world/images", 7)
    kind = name.removesuffix(".sh").removeprefix("finetune_")
    assert training.output_dir == f"{runs}/llava-{kind}-{regap}"
    assert training.lora_enable == ("lora" in kind)
    assert training.bits == (4 if kind == "qlora" else 16)
    assert training.group_by_modality_length is not stage_one
    assert (training.bf16, training.tf32, training.deepspeed) == (False, False, None)
    if not stage_one:
        assert model.pretrain_mm_mlp_adapter == f"{runs}/llava-pretrain-{regap}/mm_projector.bin"


@pytest.mark.parametrize("name", ["pretrain.sh", "finetune.sh"])
def test_help_lists_the_knobs_and_a_bad_knob_is_refused(name: str):
    helped = call(name, "--help").stdout
    knobs = re.findall(r"^  ([A-Z0-9_]+) \(", helped, re.MULTILINE)
    assert {"REGAP", "MODEL", "VISION_TOWER", "DATA", "OUTPUT_DIR", "LEARNING_RATE", "SEED"} <= set(knobs)
    refused = call(name, REGAP="maybe")
    assert refused.returncode == 2
    assert refused.stderr == "REGAP is 'maybe': set it to on or off.\n"


def test_a_run_is_recorded_and_so_is_its_second_start(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "regap_patch.study.environment",
        "--output_path",
        str(tmp_path / "out"),
        "--",
    ]
    for _ in range(2):
        subprocess.run([*command, "train", "--flag"], cwd=ROOT, check=True, timeout=60)
    first, second = json.loads((tmp_path / "out" / "command.json").read_text())
    assert first["command"] == second["command"] == ["train", "--flag"]
    assert first["versions"]["torch"].startswith("2.")
    assert len(first["commit"]) >= 40
