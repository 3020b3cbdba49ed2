"""The command line of training: LLaVA v1.5's own scripts, removed flags, and what is refused."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path

import pytest

from llava.train.arguments import parse_arguments
from llava.train.removed_flags import translate_flags

SHARED = """
    --vision_tower openai/clip-vit-large-patch14-336 --mm_projector_type mlp2x_gelu
    --mm_vision_select_layer -2 --mm_use_im_start_end False --mm_use_im_patch_token False --bf16 True
    --num_train_epochs 1 --per_device_eval_batch_size 4 --gradient_accumulation_steps 1
    --evaluation_strategy no --save_strategy steps --save_total_limit 1
    --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine --logging_steps 1
    --tf32 True --model_max_length 2048 --gradient_checkpointing True --dataloader_num_workers 4
    --lazy_preprocess True --report_to wandb
"""
PRETRAIN = """
    --deepspeed ./scripts/zero2.json --model_name_or_path lmsys/vicuna-13b-v1.5 --version plain
    --data_path ./playground/data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json
    --image_folder ./playground/data/LLaVA-Pretrain/images --tune_mm_mlp_adapter True
    --output_dir ./checkpoints/llava-v1.5-13b-pretrain --per_device_train_batch_size 32 --save_steps 24000
    --learning_rate 1e-3
"""
FINETUNE = """
    --deepspeed ./scripts/zero3.json --model_name_or_path lmsys/vicuna-13b-v1.5 --version v1
    --data_path ./playground/data/llava_v1_5_mix665k.json --image_folder ./playground/data
    --pretrain_mm_mlp_adapter ./checkpoints/llava-v1.5-13b-pretrain/mm_projector.bin --image_aspect_ratio pad
    --group_by_modality_length True --output_dir ./checkpoints/llava-v1.5-13b --per_device_train_batch_size 16
    --save_steps 50000 --learning_rate 2e-5
"""
FINETUNE_TASK = FINETUNE.replace("lmsys/vicuna-13b-v1.5", "liuhaotian/llava-v1.5-13b").replace(
    "--pretrain_mm_mlp_adapter ./checkpoints/llava-v1.5-13b-pretrain/mm_projector.bin", ""
)


@pytest.fixture
def gpu_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A folder with DeepSpeed configurations, on a machine that would take --bf16 and --tf32."""
    from transformers import training_args
    from transformers.integrations import deepspeed

    monkeypatch.chdir(tmp_path)
    Path("scripts").mkdir()
    for stage in (2, 3):
        config = {
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "bf16": {"enabled": "auto"},
            "zero_optimization": {"stage": stage},
        }
        Path(f"scripts/zero{stage}.json").write_text(json.dumps(config))
    monkeypatch.setattr(training_args, "is_torch_tf32_available", lambda: True)
    monkeypatch.setattr(training_args, "enable_tf32", lambda on: None)
    monkeypatch.setattr(training_args, "is_torch_bf16_gpu_available", lambda: True)
    yield
    deepspeed.unset_hf_deepspeed_config()


@pytest.fixture
def parse(tmp_path: Path):
    def parsed(line: str):
        return parse_arguments([*line.split(), "--output_dir", str(tmp_path), "--use_cpu", "True"])

    return parsed


@pytest.mark.parametrize(
    "own", [PRETRAIN, FINETUNE, FINETUNE_TASK], ids=["pretrain", "finetune", "finetune_task"]
)
@pytest.mark.usefixtures("gpu_flags")
def test_v1_5_script_lines_parse(own: str):
    model, data, training = parse_arguments((own + SHARED).split())
    assert (model.mm_projector_type, model.mm_vision_select_layer) == ("mlp2x_gelu", -2)
    assert (model.mm_use_im_start_end, model.mm_use_im_patch_token) == (False, False)
    assert model.tune_mm_mlp_adapter == (own is PRETRAIN)
    assert data.image_aspect_ratio == ("square" if own is PRETRAIN else "pad")
    assert training.group_by_modality_length == (own is not PRETRAIN)
    assert training.eval_strategy == "no"
    assert training.get_warmup_steps(1000) == 30
    assert training.model_max_length == 2048
    assert training.gradient_checkpointing is True
    assert training.learning_rate == (1e-3 if own is PRETRAIN else 2e-5)
    assert training.deepspeed.endswith("zero2.json" if own is PRETRAIN else "zero3.json")
    assert training.report_to == ["wandb"]


def test_defaults_are_those_of_llava(parse):
    model, data, training = parse("")
    assert vars(model) == {
        "model_name_or_path": "facebook/opt-125m",
        "version": "v0",
        "freeze_backbone": False,
        "tune_mm_mlp_adapter": False,
        "vision_tower": None,
        "mm_vision_select_layer": -1,
        "pretrain_mm_mlp_adapter": None,
        "mm_projector_type": "linear",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": True,
        "mm_patch_merge_type": "flat",
        "mm_vision_select_feature": "patch",
        "unfreeze_mm_vision_tower": False,
        "s2": False,
        "s2_scales": "336,672,1008",
    }
    assert (data.data_path, data.image_folder, data.image_aspect_ratio) == (None, None, "square")
    assert (data.lazy_preprocess, data.is_multimodal) == (False, False)
    assert (data.validate_data, data.on_bad_sample) == (False, "error")
    assert training.optim == "adamw_torch"
    assert training.remove_unused_columns is False
    assert training.model_max_length == 512
    assert (training.bits, training.quant_type, training.double_quant) == (16, "nf4", True)
    assert (training.lora_r, training.lora_alpha, training.lora_dropout) == (64, 16, 0.05)
    assert (training.lora_bias, training.lora_enable) == ("none", False)
    assert (training.mm_projector_lr, training.group_by_modality_length) == (None, False)


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("--evaluation_strategy no", "--eval_strategy no"),
        ("--evaluation-strategy=steps", "--eval_strategy steps"),
        ("--no_cuda", "--use_cpu"),
        ("--per_gpu_train_batch_size 4", "--per_device_train_batch_size 4"),
        ("--warmup_ratio 0.03", "--warmup_steps 0.03"),
        ("--warmup_ratio 0.03 --warmup_steps 0", "--warmup_steps 0.03"),
        ("--warmup_ratio 0.03 --warmup_steps 7", "--warmup_steps 7"),
        ("--adafactor True", "--optim adafactor"),
        ("--adafactor False", ""),
        ("--group_by_length True", "--train_sampling_strategy group_by_length"),
        ("--save_safetensors True", ""),
        ("--overwrite_output_dir", ""),
        ("--half_precision_backend auto", ""),
        ("--seed 3 --mm_vision_select_layer -2 --bf16", "--seed 3 --mm_vision_select_layer -2 --bf16"),
    ],
)
def test_removed_flags_are_translated(line: str, flags: str):
    assert translate_flags(line.split(), {"seed", "bf16", "warmup_steps"}) == flags.split()


def test_a_flag_that_transformers_still_has_is_left_alone():
    assert translate_flags(["--warmup_ratio", "0.03"], {"warmup_ratio"}) == ["--warmup_ratio", "0.03"]


@pytest.mark.parametrize("total", [1, 10, 999, 5195, 10_000_000])
@pytest.mark.parametrize("ratio", ["0", "0.03", "0.5", "1.0"])
def test_warmup_has_as_many_steps_as_before(parse, ratio: str, total: int):
    training = parse(f"--warmup_ratio {ratio}")[2]
    assert training.get_warmup_steps(total) == math.ceil(total * float(ratio))


def test_logging_dir_moves_to_the_environment(parse, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "before")
    parse("--logging_dir runs/one")
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == "runs/one"


def test_a_flag_without_effect_says_so(parse, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "llava"):
        parse("--overwrite_output_dir True")
    assert caplog.messages == [
        "--overwrite_output_dir True has no effect: a run resumes from its own checkpoints; "
        "choose another --output_dir to start anew."
    ]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "--version v7",
            "--version v7 is not a conversation template to train with: pass one of "
            "chatml_direct, default, llama_2, llava_llama_2, llava_v0, llava_v1, mistral_direct, "
            "mistral_instruct, mpt, plain, v0, v0.5, v0_mmtag, v0_plain, v1, v1_mmtag, vicuna_v1.",
        ),
        (
            "--lora_weight_path there",
            "--lora_weight_path there starts from an existing adapter, but nothing asks for LoRA: pass "
            "--lora_enable True too, or leave the path out.",
        ),
        (
            "--lora_enable True --tune_mm_mlp_adapter True",
            "--tune_mm_mlp_adapter True trains the projector alone, and --lora_enable True adapters of the "
            "language model; drop one.",
        ),
        (
            "--lora_enable True --lora_bias some",
            "--lora_bias some is none of none, all, lora_only; pass one of these.",
        ),
        ("--lora_enable True --lora_r 0", "--lora_r 0 is no rank; pass a number from 1 on."),
        (
            "--bits 4",
            "--bits 4 freezes the language model in 4 bits, and nothing would train it: pass --lora_enable "
            "True too, or leave --bits out.",
        ),
        ("--lora_enable True --bits 5", "--bits 5 is none of 4, 8 and 16; pass one of these."),
        (
            "--lora_enable True --bits 4 --quant_type int4",
            "--quant_type int4 is neither nf4 nor fp4; pass one of these.",
        ),
        (
            "--mpt_attn_impl torch",
            "--mpt_attn_impl torch is for MPT models, which this version does not train: "
            "take a LLaMA or Vicuna checkpoint and leave the flag out.",
        ),
        (
            "--image_aspect_ratio round",
            "--image_aspect_ratio round is not one that this version trains: pass `pad`, `square` or "
            "`anyres`.",
        ),
        (
            "--image_aspect_ratio anyres",
            "image_aspect_ratio is 'anyres', but image_grid_pinpoints, the sizes to take, are missing; "
            "give them as [[width, height], ...].",
        ),
        (
            "--image_aspect_ratio anyres --image_grid_pinpoints (1x1),(2x2)",
            "image_grid_pinpoints is '(1x1),(2x2)', which is no list of sizes; write it as "
            "[[width, height], ...].",
        ),
        (
            "--image_aspect_ratio anyres_max_9 --image_grid_pinpoints [[336,672]]",
            "image_aspect_ratio is 'anyres_max_9', a variant of LLaVA-NeXT that this version does not have; "
            "take 'anyres', or a checkpoint of LLaVA v1.5 or v1.6.",
        ),
        (
            "--mm_patch_merge_type spiral",
            "mm_patch_merge_type is 'spiral', which this version does not have; take one of flat, spatial, "
            "spatial_unpad.",
        ),
        ("--image_floder x", "The training command has no flag --image_floder: did you mean --image_folder?"),
        ("--xyzzy 1", "The training command has no flag --xyzzy: --help lists the flags."),
        (
            "--warmup_ratio 3",
            "--warmup_ratio 3.0 is no share of the training steps: pass a number from 0 to 1.",
        ),
        (
            "--save_safetensors False",
            "--save_safetensors False was removed from transformers: "
            "weights are always written as safetensors.",
        ),
    ],
)
def test_what_is_refused_is_one_sentence(parse, line: str, sentence: str):
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the whole text is compared
        parse(line)
    assert str(error.value) == sentence


def test_help_says_something_about_every_flag_of_ours(capsys: pytest.CaptureFixture):
    import dataclasses

    from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments

    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    shown = capsys.readouterr().out
    for kind in (ModelArguments, DataArguments, TrainingArguments):
        for field in dataclasses.fields(kind):
            if field.init:
                assert f"--{field.name}" in shown
                assert field.metadata.get("help"), field.name
