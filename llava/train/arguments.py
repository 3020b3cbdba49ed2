"""The flags of a training run, with the names and defaults of LLaVA v1.5, whose scripts run unchanged."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import transformers

from llava.model.anyres import check_merge_type, wants_tiles
from llava.train.removed_flags import translate_flags


def _flag(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class ModelArguments:
    """What is trained: the language model, the vision tower and the projector between them."""

    _argument_group_name = "model"

    model_name_or_path: str | None = _flag(
        "facebook/opt-125m", "Base LLM or LLaVA checkpoint: a folder or a hub id."
    )
    version: str | None = _flag(
        "v0",
        "Conversation template: `plain` for stage 1 (caption only); for stage 2 the one of the LLM: `v1` "
        "(Vicuna), `llama_2`, `mistral_instruct`, `chatml_direct`, ...",
    )
    freeze_backbone: bool = _flag(False, "Freeze the LLM's decoder; lm_head and projector stay trainable.")
    tune_mm_mlp_adapter: bool = _flag(False, "Stage 1: train the projector and nothing else.")
    vision_tower: str | None = _flag(
        None, "CLIP or SigLIP tower: a folder or a hub id. Without it the run is text-only."
    )
    mm_vision_select_layer: int | None = _flag(
        -1, "Hidden state of the tower that feeds the projector; LLaVA v1.5 takes -2, the last but one."
    )
    pretrain_mm_mlp_adapter: str | None = _flag(
        None, "`mm_projector.bin` of a stage 1 run, to start stage 2 from."
    )
    mm_projector_type: str | None = _flag(
        "linear", "`linear`, `mlpNx_gelu` with N layers (LLaVA v1.5: `mlp2x_gelu`), or `identity`."
    )
    mm_use_im_start_end: bool = _flag(False, "Put <im_start> and <im_end> around every image.")
    mm_use_im_patch_token: bool = _flag(True, "Add <im_patch> to the vocabulary; LLaVA v1.5 passes False.")
    mm_patch_merge_type: str | None = _flag(
        "flat", "How the tiles of one image are joined: `flat`, `spatial` or `spatial_unpad`."
    )
    mm_vision_select_feature: str | None = _flag(
        "patch", "`patch` drops the tower's CLS token, `cls_patch` keeps it."
    )
    unfreeze_mm_vision_tower: bool = _flag(False, "Train the vision tower too; not in stage 1.")
    s2: bool = _flag(False, "Let a CLIP tower look at several scales (S2).")
    s2_scales: str = _flag(
        "336,672,1008", "Sides of these scales in pixels, the first the tower's own (with --s2)."
    )


@dataclass
class DataArguments:
    """Where samples come from, how images are prepared, and what happens to a sample that cannot be used."""

    _argument_group_name = "data"

    data_path: str | None = _flag(
        None,
        "One JSON file: a list of {id, image (a path, a list or none), conversations: [{from, value}, ...]}.",
    )
    lazy_preprocess: bool = _flag(
        False, "Accepted for older scripts: samples are always tokenized when they are asked for."
    )
    is_multimodal: bool = _flag(False, "Set by the run itself when --vision_tower is given.")
    image_folder: str | None = _flag(None, "Folder that the `image` paths of the samples start from.")
    image_aspect_ratio: str = _flag(
        "square",
        "`pad` fills an image up to a square first; `square` resizes and cuts the centre out; `anyres` cuts "
        "it into tiles (with --image_grid_pinpoints).",
    )
    image_grid_pinpoints: str | None = _flag(
        None,
        'Sizes that `anyres` chooses from, in multiples of the tower\'s: "[[336, 672], [672, 336]]".',
    )
    validate_data: bool = _flag(
        False, "Check every sample, images included, before training starts, and report all problems at once."
    )
    on_bad_sample: Literal["error", "skip"] = _flag(
        "error",
        "`error` stops at a sample that cannot be used; `skip` trains on the next usable one of its kind "
        "instead and lists what it skipped in skipped_samples.jsonl.",
    )

    # Not flags: the run fills these in once the model is there.
    image_processor: Any = field(default=None, init=False)
    mm_use_im_start_end: bool = field(default=False, init=False)
    image_tokens: int = field(default=1, init=False)  # features of one tile
    mm_patch_merge_type: str = field(default="flat", init=False)
    skipped_samples_path: str | None = field(default=None, init=False)


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    """All flags of `transformers.TrainingArguments`, and LLaVA's own."""

    _argument_group_name = "training"

    cache_dir: str | None = _flag(None, "Where files of the hub are kept.")
    optim: str = _flag("adamw_torch", "Optimizer, by transformers' names.")
    remove_unused_columns: bool = _flag(False, "Must stay False: images are no column of the model.")
    freeze_mm_mlp_adapter: bool = _flag(False, "Keep the projector frozen.")
    mpt_attn_impl: str | None = _flag("triton", "Attention of MPT models; they are not supported here.")
    model_max_length: int = _flag(
        512, "Longest sequence, in tokens; what is longer is cut on the right. LLaVA v1.5 takes 2048."
    )
    double_quant: bool = _flag(True, "Quantize the quantization constants too (with --bits 4).")
    quant_type: str = _flag("nf4", "4-bit data type: `nf4` or `fp4` (with --bits 4).")
    bits: int = _flag(16, "Bits of a frozen LLM weight: 16, or 8 or 4 with --lora_enable (QLoRA).")
    lora_enable: bool = _flag(
        False, "Train LoRA adapters of the LLM, and the projector, in place of the LLM."
    )
    lora_r: int = _flag(64, "LoRA rank (with --lora_enable).")
    lora_alpha: int = _flag(16, "LoRA scale (with --lora_enable).")
    lora_dropout: float = _flag(0.05, "LoRA dropout (with --lora_enable).")
    lora_weight_path: str = _flag(
        "", "Folder of a LoRA run, ours or upstream's, whose weights to start from."
    )
    lora_bias: str = _flag(
        "none", "Which biases LoRA trains: `none`, `all`, `lora_only` (with --lora_enable)."
    )
    mm_projector_lr: float | None = _flag(
        None, "Learning rate of the projector; without it that of everything else."
    )
    mm_vision_tower_lr: float | None = _flag(
        None, "Learning rate of the tower (with --unfreeze_mm_vision_tower); without it that of the rest."
    )
    group_by_modality_length: bool = _flag(
        False, "Make batches of one kind (with image, text only) and of similar length."
    )

    @property
    def run_dtype(self) -> torch.dtype:
        """What frozen weights are kept in: bf16 or fp16 if the run computes in it, else fp32."""
        if self.bf16:
            return torch.bfloat16
        return torch.float16 if self.fp16 else torch.float32


def _refuse_unbuilt(model: ModelArguments, data: DataArguments, training: TrainingArguments) -> None:
    """A flag of a part that is not built must not be passed over in silence."""
    if training.mpt_attn_impl != "triton":
        raise ValueError(
            f"--mpt_attn_impl {training.mpt_attn_impl} is for MPT models, which this version does not train: "
            "take a LLaMA or Vicuna checkpoint and leave the flag out."
        )
    if not wants_tiles(data) and data.image_aspect_ratio not in {"pad", "square"}:
        raise ValueError(
            f"--image_aspect_ratio {data.image_aspect_ratio} is not one that this version trains: "
            "pass `pad`, `square` or `anyres`."
        )
    check_merge_type(model.mm_patch_merge_type or "flat")


def parse_arguments(
    argv: list[str] | None = None,
) -> tuple[ModelArguments, DataArguments, TrainingArguments]:
    """Reads the flags of a training run.

    Args:
        argv: The flags; None takes those of this process.

    Returns:
        The three groups of arguments.

    Raises:
        ValueError: A flag is unknown, or asks for what this version cannot do, in one sentence.
    """
    from llava.train import lora, quantization
    from llava.train.preprocess import conversation_for

    kinds = [ModelArguments, DataArguments, TrainingArguments]
    parser = transformers.HfArgumentParser(
        kinds,  # type: ignore[arg-type]  # its annotation asks for an instance of a class
        usage="python -m llava.train.train --model_name_or_path LLM --vision_tower CLIP --version plain|v1 "
        "--data_path FILE --image_folder FOLDER --output_dir FOLDER [more flags]",
        description="Trains a LLaVA model: stage 1 (--version plain --tune_mm_mlp_adapter True) fits the "
        "projector to a frozen LLM on captions, stage 2 (--version v1) fine-tunes the LLM on dialogues.",
    )
    today = {f.name for f in dataclasses.fields(TrainingArguments)}
    flags = translate_flags(sys.argv[1:] if argv is None else argv, today)
    with warnings.catch_warnings():
        # LLaVA's scripts pass --gradient_checkpointing, which still works under its old name.
        warnings.filterwarnings("ignore", "`gradient_checkpointing", FutureWarning)
        *groups, unknown = parser.parse_args_into_dataclasses(
            flags, look_for_args_file=False, return_remaining_strings=True
        )
    if unknown:
        known = [f"--{f.name}" for kind in kinds for f in dataclasses.fields(kind) if f.init]
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]}?" if close else "--help lists the flags."
        raise ValueError(f"The training command has no flag {unknown[0]}: {hint}")
    model, data, training = groups
    conversation_for(model.version)
    _refuse_unbuilt(model, data, training)
    lora.refuse_contradictions(model, training)
    quantization.refuse_contradictions(training)
    return model, data, training
