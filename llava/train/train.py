"""Train LLaVA: stage 1 (the projector) or stage 2 (the whole model), as the flags say.

    python -m llava.train.train --help
    deepspeed llava/train/train_mem.py --deepspeed deepspeed_configs/zero3.json ...

The same command line again resumes a run that was stopped, from its last complete checkpoint.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # as a script (`deepspeed llava/train/train.py`), only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

    from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments

# names that forks of LLaVA import from here
_EXPORTED = {
    "ModelArguments": "llava.train.arguments",
    "DataArguments": "llava.train.arguments",
    "TrainingArguments": "llava.train.arguments",
    "preprocess": "llava.train.preprocess",
    "preprocess_multimodal": "llava.train.preprocess",
    "preprocess_plain": "llava.train.preprocess",
    "preprocess_v1": "llava.train.preprocess",
    "LazySupervisedDataset": "llava.train.data",
    "DataCollatorForSupervisedDataset": "llava.train.data",
    "make_supervised_data_module": "llava.train.data",
    "load_language_model": "llava.train.language_model",
    "load_tokenizer": "llava.train.language_model",
    "smart_tokenizer_and_embedding_resize": "llava.train.language_model",
    "LLaVATrainer": "llava.train.llava_trainer",
    "maybe_zero_3": "llava.train.saved_files",
    "get_mm_adapter_state_maybe_zero_3": "llava.train.saved_files",
    "get_peft_state_maybe_zero_3": "llava.train.lora_files",
    "get_peft_state_non_lora_maybe_zero_3": "llava.train.lora_files",
    "find_all_linear_names": "llava.train.lora",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTED[name]), name)


def rank0_print(*args: Any) -> None:
    """Print on the first process of the run only."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(*args, flush=True)


def train(attn_implementation: str | None = None, argv: list[str] | None = None) -> None:
    """Run one stage of training, from flags to the saved model.

    Args:
        attn_implementation: of the language model, by transformers' names; None lets transformers choose.
        argv: the flags; None takes those of this process.

    Raises:
        ValueError: flags, data or files do not fit; the sentence says what to do.
    """
    from llava.train.processes import connect_deepspeed_on_cpu

    connect_deepspeed_on_cpu(sys.argv[1:] if argv is None else argv)
    from llava.train.arguments import parse_arguments

    model_args, data_args, training_args = parse_arguments(argv)
    checkpoint, fingerprint = find_own_checkpoint(model_args, data_args, training_args)

    from transformers import set_seed

    from llava.model.zero3 import give_one_dtype
    from llava.train.language_model import load_language_model, load_tokenizer
    from llava.train.lora import add_adapters
    from llava.train.saved_files import make_savable

    set_seed(training_args.seed)  # before the projector draws its first weights
    model = load_language_model(model_args, training_args, attn_implementation)
    tokenizer = load_tokenizer(model_args, training_args, model)
    if model_args.vision_tower is not None:
        add_vision(model, tokenizer, model_args, data_args, training_args)
    choose_what_trains(model, model_args, training_args)
    if model_args.vision_tower is not None:
        model.initialize_vision_tokenizer(model_args, tokenizer)
    make_savable(model)
    if training_args.lora_enable:
        model = add_adapters(model, model_args, training_args)
    give_one_dtype(model)

    from llava.train.data import make_supervised_data_module
    from llava.train.llava_trainer import LLaVATrainer
    from llava.train.memory_report import announce_memory
    from llava.train.save_rehearsal import rehearse_save

    trainer = LLaVATrainer(
        model=model,
        processing_class=tokenizer,
        args=training_args,
        fingerprint=fingerprint,
        **make_supervised_data_module(tokenizer, data_args),
    )
    announce_memory(trainer)
    rehearse_save(trainer)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_state()
    safe_save_model_for_hf_trainer(trainer, training_args.output_dir)


def find_own_checkpoint(
    model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments
) -> tuple[str | None, dict[str, Any]]:
    """The checkpoint to go on from, if the output folder has one, and the fingerprint of this run.

    Raises:
        ForeignCheckpointError: the folder holds a checkpoint of another run.
        FileNotFoundError: `--resume_from_checkpoint` names a folder that is not there, or not complete.
    """
    from llava.train import checkpoint as checkpoints

    fingerprint = checkpoints.run_fingerprint(model_args, data_args, training_args)
    named = training_args.resume_from_checkpoint
    if named and named.lower() not in {"true", "false"}:  # which say what happens anyway
        torn = checkpoints.what_is_torn(Path(named)) if Path(named).is_dir() else "there is no such folder"
        if torn is not None:
            raise FileNotFoundError(
                f"--resume_from_checkpoint {named} is not a complete checkpoint ({torn}); without the flag, "
                "the run resumes from the last complete one in --output_dir."
            )
        checkpoints.refuse_foreign_checkpoints([Path(named)], fingerprint)
        return named, fingerprint

    found = checkpoints.list_checkpoints(training_args.output_dir)
    checkpoints.refuse_foreign_checkpoints(found, fingerprint)
    last = checkpoints.find_last_complete_checkpoint(training_args.output_dir)
    for folder in found:
        torn = checkpoints.what_is_torn(folder)
        if torn is not None:
            rank0_print(f"Ignoring {folder}: {torn}.")
    if last is not None:
        rank0_print(f"Resuming from {last}, written after step {checkpoints.step_of(last)}.")
    return None if last is None else str(last), fingerprint


def add_vision(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: TrainingArguments,
) -> None:
    """Give the language model its tower and projector, and write down how images are treated."""
    from llava.conversation import SeparatorStyle, conv_templates
    from llava.model.anyres import check_tiling, parse_pinpoints, wants_tiles
    from llava.tiles import tile_size
    from llava.train.preprocess import conversation_for

    model.get_model().initialize_vision_modules(model_args=model_args, fsdp=training_args.fsdp)
    tower = model.get_vision_tower()
    tower.to(dtype=_tower_dtype(model_args, training_args), device=training_args.device)

    data_args.image_processor = tower.image_processor
    data_args.is_multimodal = True
    data_args.mm_use_im_start_end = model_args.mm_use_im_start_end
    data_args.image_tokens = tower.num_patches + (model_args.mm_vision_select_feature == "cls_patch")
    data_args.mm_patch_merge_type = model.config.mm_patch_merge_type
    data_args.skipped_samples_path = str(Path(training_args.output_dir) / "skipped_samples.jsonl")
    training_args.use_im_start_end = model_args.mm_use_im_start_end

    config = model.config
    config.image_aspect_ratio = data_args.image_aspect_ratio
    if wants_tiles(data_args):
        config.image_grid_pinpoints = [list(size) for size in parse_pinpoints(data_args.image_grid_pinpoints)]
        check_tiling(config.image_grid_pinpoints, tile_size(tower.image_processor))
    config.tokenizer_padding_side = tokenizer.padding_side
    config.tokenizer_model_max_length = tokenizer.model_max_length
    config.freeze_mm_mlp_adapter = training_args.freeze_mm_mlp_adapter
    config.mm_projector_lr = training_args.mm_projector_lr
    config.unfreeze_mm_vision_tower = model_args.unfreeze_mm_vision_tower
    config.mm_vision_tower_lr = training_args.mm_vision_tower_lr
    config.mm_use_im_start_end = model_args.mm_use_im_start_end
    config.mm_use_im_patch_token = model_args.mm_use_im_patch_token
    template = conversation_for(model_args.version)
    if template.sep_style is not SeparatorStyle.PLAIN:  # whose captions are no way to ask for anything
        config.conversation_template = next(key for key, it in conv_templates.items() if it is template)


def _tower_dtype(model_args: ModelArguments, training_args: TrainingArguments) -> torch.dtype:
    """That of the run for a frozen tower; one that trains is kept as the language model is."""
    import torch

    if training_args.fp16 and model_args.unfreeze_mm_vision_tower:
        return torch.float32  # computes in fp16 by autocast
    return training_args.run_dtype


def choose_what_trains(
    model: PreTrainedModel, model_args: ModelArguments, training_args: TrainingArguments
) -> None:
    """Set `requires_grad` by the flags. With LoRA the language model is frozen.

    Raises:
        ValueError: the flags leave nothing to train, or rule each other out.
    """
    _check_tower_flags(model_args, training_args)
    stage_1 = bool(model_args.tune_mm_mlp_adapter)
    model.config.tune_mm_mlp_adapter = training_args.tune_mm_mlp_adapter = stage_1
    if stage_1 and (training_args.freeze_mm_mlp_adapter or model_args.vision_tower is None):
        other = "--freeze_mm_mlp_adapter True" if model_args.vision_tower else "no --vision_tower"
        raise ValueError(
            f"--tune_mm_mlp_adapter True trains the projector alone, and {other} rules that out; drop one."
        )
    whole_model = not (stage_1 or training_args.lora_enable)
    model.requires_grad_(False)  # weights in 4 or 8 bits could not even be asked to train
    if whole_model:
        model.requires_grad_(True)
    if model_args.freeze_backbone:
        model.model.requires_grad_(False)
    if model_args.vision_tower is not None:
        projector_trains = not training_args.freeze_mm_mlp_adapter
        model.get_model().mm_projector.requires_grad_(projector_trains)
        newline = getattr(model.get_model(), "image_newline", None)
        if newline is not None:  # only tiles have rows to end
            newline.requires_grad_(projector_trains and model.config.image_aspect_ratio == "anyres")
        tower = model.get_vision_tower()
        tower.requires_grad_(False)
        if model_args.unfreeze_mm_vision_tower:
            tower.unfreeze()


def _check_tower_flags(model_args: ModelArguments, training_args: TrainingArguments) -> None:
    if not model_args.unfreeze_mm_vision_tower:
        if training_args.mm_vision_tower_lr is not None:
            raise ValueError(
                f"--mm_vision_tower_lr {training_args.mm_vision_tower_lr} is the rate of a tower that is "
                "frozen; pass --unfreeze_mm_vision_tower True too, or leave it out."
            )
        return
    others = {
        "--tune_mm_mlp_adapter True trains the projector alone": model_args.tune_mm_mlp_adapter,
        "no --vision_tower is given": model_args.vision_tower is None,
        "--fsdp hides the tower from training": bool(training_args.fsdp),
    }
    for reason, holds in others.items():
        if holds:
            raise ValueError(f"--unfreeze_mm_vision_tower True trains the tower, but {reason}; drop one.")


def safe_save_model_for_hf_trainer(trainer: Trainer, output_dir: str) -> None:
    """Save the finished model; every process calls, and DeepSpeed's pieces are put together."""
    trainer.save_model(output_dir)


def run_as_command(attn_implementation: str | None = None) -> None:
    """`train`, as the last thing that a process does."""
    from llava.train.processes import leave_group

    train(attn_implementation)
    atexit.register(leave_group)


if __name__ == "__main__":
    run_as_command()
