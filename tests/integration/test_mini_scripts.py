"""The laptop twins of LLaVA's scripts plan what the training code takes; and the quickstart, from nothing."""

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


@pytest.mark.full
def test_quickstart_from_nothing_and_again(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "regap_patch.cli",
        "quickstart",
        "--size",
        "smoke",
        "--output_path",
        str(tmp_path),
    ]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert first.returncode == 0, first.stdout + first.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    for arm in ("off", "on"):
        found = results["arms"][arm]
        assert found["vqa"]["total"] == 14
        assert (Path(found["checkpoints"]["finetune"]) / "model.safetensors").is_file()
        assert (Path(found["checkpoints"]["pretrain"]) / "command.json").is_file()
    gaps = [results["arms"][arm]["pretrain"]["centroid_l2"] for arm in ("off", "on")]
    assert gaps[1] < 0.6 * gaps[0]
    assert (tmp_path / "quickstart.png").stat().st_size > 10_000
    assert "nothing about safety" in first.stdout
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert again.stdout.count("done before") == 10
    assert json.loads((tmp_path / "results.json").read_text()) == results
    check_measurements(tmp_path)


def check_measurements(root: Path) -> None:
    """`regap mir RUN_DIR/*` on what the quickstart left: four checkpoints, the difference, a picture."""
    out, world = root / "mir", root / "world"
    flags = ["--images", world / "images", "--texts", world / "pretrain.json", "--model_base", root / "llama"]
    flags += ["--pairs", "20,100", "--output_path", out]
    regap = [sys.executable, "-m", "regap_patch.cli"]

    def run(*words: object) -> str:
        command = [*regap, *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = run("mir", *sorted(root.iterdir()), *flags)
    assert "llama: passed over, a model without images" in said
    files = {
        name: out / f"llava-{name}.json"
        for name in ("pretrain-off", "pretrain-on", "finetune-off", "finetune-on")
    }
    found = {name: json.loads(file.read_text()) for name, file in files.items()}
    for name, result in found.items():
        assert f"{result['mir']['value']:.4f}" in said
        assert (result["data"]["pairs"], result["evaluation"]["mode"]) == (100, "layer_major"), name
    assert len({json.dumps(result["data"], sort_keys=True) for result in found.values()}) == 1
    for stage in ("pretrain", "finetune"):  # what ReGap did to the input lasts
        off, on = (found[f"{stage}-{arm}"]["layer_zero"]["centroid_l2"] for arm in ("off", "on"))
        assert on < off
        assert "95% interval" in run("mir", "compare", files[f"{stage}-off"], files[f"{stage}-on"])
    picture = root / "mir.png"
    run("plot", *files.values(), "--output_path", picture)
    assert picture.stat().st_size > 10_000
