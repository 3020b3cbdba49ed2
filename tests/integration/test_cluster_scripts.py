"""The cluster's scripts plan what the training code takes, and their laptop twins run it under DeepSpeed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.integration.mini_run import flags, losses, weights
from tests.upstream.recipes import random_projector

ROOT = Path(__file__).parents[2]
CLUSTER = sorted((ROOT / "scripts" / "v1_5").glob("*.sh"))
SCRIPTS = [*CLUSTER, *sorted((ROOT / "scripts" / "mini").glob("*.sh"))]
UPSTREAM = {  # what LLaVA v1.5 was trained with: samples of a step, learning rate, ZeRO
    "pretrain.sh": (256, 1e-3, "zero2.json"),
    "finetune.sh": (128, 2e-5, "zero3.json"),
    "finetune_lora.sh": (128, 2e-4, "zero3.json"),
    "finetune_qlora.sh": (128, 2e-4, "zero2.json"),
    "finetune_task.sh": (128, 2e-5, "zero3.json"),
    "finetune_task_lora.sh": (128, 2e-4, "zero3.json"),
}
LORA = {"lora_enable": True, "lora_r": 128, "lora_alpha": 256, "lora_dropout": 0.05, "mm_projector_lr": 2e-5}
NO_LORA = {"lora_enable": False, "mm_projector_lr": None}
COMMON = {
    "num_train_epochs": 1,
    "weight_decay": 0.0,
    "warmup_steps": 0.03,
    "lr_scheduler_type": "cosine",
    "model_max_length": 2048,
    "gradient_checkpointing": True,
    "bf16": True,
    "tf32": True,
}


def call(script: Path, *flags: str, timeout: float = 60, **knobs: object):
    environment = os.environ | {"PYTHON": sys.executable} | {name: str(knob) for name, knob in knobs.items()}
    return subprocess.run(
        ["bash", str(script), *flags],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def planned(script: Path, *flags: str, **knobs: object) -> list[str]:
    done = call(script, *flags, DRY_RUN=1, **knobs)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


def understood(words: list[str], monkeypatch: pytest.MonkeyPatch):
    """The launcher's settings, and the three groups of arguments, of a line that was made for GPUs.

    The DeepSpeed file is only looked at: transformers would connect the processes that it is for.
    """
    import transformers.training_args as library

    from llava.train.arguments import TrainingArguments, parse_arguments
    from regap_patch.train.launch import parse

    for check in ("is_torch_bf16_gpu_available", "is_torch_tf32_available"):
        monkeypatch.setattr(library, check, lambda: True)
    launch = parse(words[words.index("regap_patch.run") + 1 :])
    flags = list(launch.argv)
    at = flags.index("--deepspeed")
    assert "deepspeed" in {field.name for field in dataclasses.fields(TrainingArguments)}
    config = Path(flags[at + 1])
    assert json.loads(config.read_text())["zero_optimization"]["stage"] in {2, 3}
    del flags[at : at + 2]
    return launch, config, parse_arguments(flags)


@pytest.mark.parametrize(
    "script", [*SCRIPTS, ROOT / "scripts/stages.sh"], ids=lambda path: path.parent.name + path.stem
)
def test_bash_can_read_it(script: Path):
    assert subprocess.run(["bash", "-n", str(script)], check=False, timeout=60).returncode == 0
    text = script.read_text()
    if script in SCRIPTS:
        assert "set -euo pipefail" in text
        assert os.access(script, os.X_OK)
        knobs = re.findall(r'^([A-Z0-9_]+)="\$\{([A-Z0-9_]+):-', text, re.MULTILINE)
        assert all(name == read for name, read in knobs)


def test_twins_have_the_same_knobs():
    for script in CLUSTER:
        sides = []
        for path in (script, ROOT / "scripts" / "mini" / script.name):
            helped = call(path, "--help")
            assert helped.returncode == 0
            sides.append(set(re.findall(r"^  ([A-Z0-9_]+) \(", helped.stdout, re.MULTILINE)))
        assert sides[0] ^ sides[1] == {"MODEL_SIZE", "RUNS"}, script.name
        assert {"ZERO", "NUM_GPUS", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"} <= sides[0]


@pytest.mark.parametrize("script", CLUSTER, ids=lambda path: path.stem)
@pytest.mark.parametrize(("regap", "size"), [("on", "7b"), ("off", "13b")])
def test_planned_line_is_understood(script: Path, regap: str, size: str, monkeypatch: pytest.MonkeyPatch):
    words = planned(script, REGAP=regap, MODEL_SIZE=size)
    assert words[: words.index("regap_patch.run")] == [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "8", "-m")
    ]
    launch, config, (model, data, training) = understood(words, monkeypatch)
    batch, rate, zero = UPSTREAM[script.name]
    stage_one = script.name == "pretrain.sh"
    assert (launch.target, launch.is_module) == ("llava.train.train_mem", True)
    assert launch.config.loss == ("centroid_l2" if stage_one and regap == "on" else "off")
    assert config == ROOT / "deepspeed_configs" / zero
    assert 8 * training.per_device_train_batch_size * training.gradient_accumulation_steps == batch
    assert training.learning_rate == rate
    assert {name: getattr(training, name) for name in COMMON} == COMMON
    lora = LORA if "lora" in script.stem else NO_LORA
    assert {name: getattr(training, name) for name in lora} == lora
    assert training.bits == (4 if "qlora" in script.stem else 16)
    task = "task" in script.stem
    assert model.model_name_or_path == (
        f"liuhaotian/llava-v1.5-{size}" if task else f"lmsys/vicuna-{size}-v1.5"
    )
    # upstream's loader goes by the name of the folder
    assert ("lora" in training.output_dir) == training.lora_enable
    assert model.vision_tower == "openai/clip-vit-large-patch14-336"
    assert (model.version, model.mm_projector_type) == ("plain" if stage_one else "v1", "mlp2x_gelu")
    assert (model.tune_mm_mlp_adapter, model.mm_vision_select_layer) == (stage_one, -2)
    assert (data.image_aspect_ratio, training.group_by_modality_length) == (
        ("square", False) if stage_one else ("pad", True)
    )
    if task:
        assert model.pretrain_mm_mlp_adapter is None
    elif not stage_one:
        first = planned(script.with_name("pretrain.sh"), REGAP=regap, MODEL_SIZE=size)
        made = first[first.index("--output_dir") + 1]
        assert model.pretrain_mm_mlp_adapter == f"{made}/mm_projector.bin"


def test_nodes_and_batches_keep_the_samples_of_a_step(monkeypatch: pytest.MonkeyPatch):
    knobs = {"NNODES": 2, "NODE_RANK": 1, "NUM_GPUS": 4, "MASTER_ADDR": "node-0", "MASTER_PORT": 1234}
    words = planned(
        ROOT / "scripts/v1_5/pretrain.sh", "--max_steps", "5", BATCH_PER_GPU=8, ZERO="3_offload", **knobs
    )
    assert words[: words.index("regap_patch.run") - 1] == [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", "1"),
        *("--nproc_per_node", "4", "--master_addr", "node-0", "--master_port", "1234"),
    ]
    _, config, (_, _, training) = understood(words, monkeypatch)
    assert config.name == "zero3_offload.json"
    assert (training.gradient_accumulation_steps, training.max_steps) == (256 // (2 * 4 * 8), 5)


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"MODEL_SIZE": "70b"}, "MODEL_SIZE is '70b': set it to 7b or 13b."),
        ({"ZERO": "1"}, "ZERO is '1': set it to 0, 2, 3 or 3_offload."),
        (
            {"NUM_GPUS": "6"},
            "BATCH_SIZE is 256, which is no multiple of the 192 samples that 1 x 6 processes with "
            "BATCH_PER_GPU=32 take at once: change one of them.",
        ),
    ],
)
def test_knob_that_means_nothing_is_refused(knobs: dict[str, str], sentence: str):
    refused = call(ROOT / "scripts/v1_5/pretrain.sh", DRY_RUN=1, **knobs)
    assert (refused.returncode, refused.stderr, refused.stdout) == (2, sentence + "\n", "")


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None, reason="DeepSpeed compiles an operator: apt-get install g++")
@pytest.mark.parametrize("zero", [2, 3])
def test_twins_run_to_the_end_under_zero(tiny, tmp_path: Path, zero: int):
    """Both stages in two processes, the second from the first's projector; run again, the first resumes.

    Then adapters: on 8 bits from the first's projector, or on the second's LLaVA.
    """
    knobs = {
        **{"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "REGAP": "on"},
        **{"MODEL": tiny.llama, "VISION_TOWER": tiny.clip, "IMAGES": tiny.world.images},
        **{"ZERO": zero, "NUM_GPUS": 2, "BATCH_SIZE": 16, "SAVE_STEPS": 2},
    }
    names = ("pretrain", "finetune", "finetune_qlora", "finetune_task_lora")
    folders = {name: tmp_path / f"llava-{name}" for name in names}
    data = dict.fromkeys(names, tiny.world.finetune_json) | {"pretrain": tiny.world.pretrain_json}

    def run(name: str, *flags: str, **more: object) -> None:
        script = ROOT / "scripts" / "mini" / f"{name}.sh"
        where = {"DATA": data[name], "OUTPUT_DIR": folders[name]}
        done = call(script, *flags, timeout=300, **(knobs | where | more))
        assert done.returncode == 0, done.stderr

    run("pretrain", "--save_total_limit", "2")
    first = folders["pretrain"]
    seen, projector = losses(first), weights(first)
    assert len(seen) == 4
    assert json.loads((first / "regap.json").read_text())["alpha"] > 0
    assert json.loads((first / "deepspeed.json").read_text())["zero_optimization"]["stage"] == zero

    shutil.rmtree(first / "checkpoint-4")
    (first / "mm_projector.bin").unlink()
    run("pretrain", "--save_total_limit", "2")
    assert losses(first) == pytest.approx(seen, rel=1e-6)
    for name, tensor in weights(first).items():
        torch.testing.assert_close(tensor, projector[name], rtol=1e-5, atol=1e-7)
    starts = json.loads((first / "command.json").read_text())
    assert len(starts) == 2
    assert starts[0]["command"] == starts[1]["command"]

    run("finetune", "--max_steps", "2", PROJECTOR=first / "mm_projector.bin")
    second = folders["finetune"]
    assert len(losses(second)) == 2
    assert "lm_head.weight" in weights(second)
    assert json.loads((second / "regap.json").read_text())["config"]["loss"] == "off"

    name, start = {
        2: ("finetune_qlora", {"PROJECTOR": first / "mm_projector.bin", "BITS": 8}),
        3: ("finetune_task_lora", {"MODEL": second}),
    }[zero]
    run(name, "--max_steps", "2", **start)
    assert len(losses(folders[name])) == 2
    for folder in (folders[name], folders[name] / "checkpoint-2"):
        kinds = {part for key in weights(folder) for part in ("lora_B", "mm_projector") if part in key}
        assert kinds == {"lora_B", "mm_projector"}
        assert json.loads((folder / "regap.json").read_text())["config"]["loss"] == "off"


@pytest.mark.full
def test_twins_run_to_the_end_in_one_process(tiny, tmp_path: Path):
    """Adapters on a projector, and a LLaVA, made in short, that learns a task."""
    from llava.train.train import train

    train(argv=flags(tiny, 2, tmp_path / "llava", max_steps=1))
    torch.save(random_projector(64, 64), tmp_path / "first.bin")
    knobs = {
        **{"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VISION_TOWER": tiny.clip},
        **{"IMAGES": tiny.world.images, "DATA": tiny.world.finetune_json},
    }
    for name, start in {
        "finetune_lora": {"MODEL": tiny.llama, "PROJECTOR": tmp_path / "first.bin"},
        "finetune_task": {"MODEL": tmp_path / "llava"},
    }.items():
        where = {"OUTPUT_DIR": tmp_path / f"llava-{name}"}
        script = ROOT / "scripts" / "mini" / f"{name}.sh"
        done = call(script, "--max_steps", "2", timeout=200, **(knobs | where | start))
        assert done.returncode == 0, done.stderr
        assert len(losses(where["OUTPUT_DIR"])) == 2
        assert "Saving was rehearsed" in done.stdout
