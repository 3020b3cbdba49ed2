"""The life of a checkpoint folder: written aside, sealed, found again, or refused.

A checkpoint is written as `tmp-checkpoint-N`. When every process has finished, a run record listing all files
with their sizes is added and the folder is renamed `checkpoint-N`. So a kill at any moment leaves either a
`tmp-` folder, which nothing reads, or a complete checkpoint; and a checkpoint that was torn otherwise (a full
disk, an interrupted copy) no longer matches its own record.

The record also holds the run's fingerprint: what makes its samples, its model and its schedule. Training does
not resume from a checkpoint with another fingerprint, and does not overwrite it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

RECORD = "llava_run.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")

# what may differ between two launches of one run: where things lie, and how the run is watched
_MODEL_FIELDS_APART = ("pretrain_mm_mlp_adapter", "unfreeze_mm_vision_tower", "s2", "s2_scales")
_DATA_FIELDS = ("image_aspect_ratio", "image_grid_pinpoints", "on_bad_sample")
_TRAINING_FIELDS = (
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "bf16",
    "fp16",
    "freeze_mm_mlp_adapter",
    "group_by_modality_length",
    "learning_rate",
    "lr_scheduler_type",
    "max_grad_norm",
    "max_steps",
    "mm_projector_lr",
    "model_max_length",
    "num_train_epochs",
    "optim",
    "seed",
    "warmup_steps",
    "weight_decay",
)
_LORA_FIELDS = (
    "bits",
    "double_quant",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "lora_enable",
    "lora_r",
    "quant_type",
)


class ForeignCheckpointError(ValueError):
    """The output folder holds a checkpoint that this run did not write."""


def _digest(path: str | None) -> str | None:
    """SHA-256 of a file's bytes, so that moved data is the same data and replaced data is not."""
    if path is None or not Path(path).is_file():
        return path
    total = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            total.update(block)
    return total.hexdigest()


def _digest_of_adapter(folder: str) -> list[str | None]:
    names = ("adapter_model.safetensors", "adapter_model.bin", "non_lora_trainables.bin")
    return [_digest(str(Path(folder) / name)) for name in names if folder and (Path(folder) / name).is_file()]


def run_fingerprint(model_args: Any, data_args: Any, training_args: Any) -> dict[str, Any]:
    """What makes a run this run, as plain JSON values.

    Args:
        model_args: the `ModelArguments` dataclass.
        data_args: the `DataArguments` dataclass.
        training_args: the `TrainingArguments` dataclass.

    Returns:
        Field name to value. Data and the first projector count by content, not by path; processes, batch and
        accumulation count by their product.
    """
    fields = {name: value for name, value in asdict(model_args).items() if name not in _MODEL_FIELDS_APART}
    fields |= {name: getattr(data_args, name, None) for name in _DATA_FIELDS}
    fields |= {name: getattr(training_args, name) for name in _TRAINING_FIELDS}
    fields["data"] = _digest(data_args.data_path)
    fields["first_projector"] = _digest(model_args.pretrain_mm_mlp_adapter)
    if getattr(model_args, "unfreeze_mm_vision_tower", False):
        fields |= {"unfreeze_mm_vision_tower": True, "mm_vision_tower_lr": training_args.mm_vision_tower_lr}
    if getattr(model_args, "s2", False):
        fields["s2_scales"] = model_args.s2_scales
    if getattr(training_args, "lora_enable", False):  # else absent, as before there was LoRA
        fields |= {name: getattr(training_args, name) for name in _LORA_FIELDS}
        fields["first_adapter"] = _digest_of_adapter(training_args.lora_weight_path)
    deepspeed = getattr(training_args, "hf_deepspeed_config", None)
    fields["zero_stage"] = 0 if deepspeed is None else deepspeed.get_value("zero_optimization.stage", 0)
    fields["global_batch_size"] = (
        training_args.train_batch_size * training_args.gradient_accumulation_steps * training_args.world_size
    )
    return json.loads(json.dumps(fields, default=str, sort_keys=True))


@contextmanager
def written_aside(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to write files into; they move to `directory`, one rename each, when the block ends well.

    The configuration moves last: a folder with `config.json` has the weights it describes.
    """
    directory = Path(directory)
    aside = directory / ".incomplete"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        for path in sorted(aside.iterdir(), key=lambda path: (path.name == "config.json", path.name)):
            os.replace(path, directory / path.name)
    finally:
        shutil.rmtree(aside)


def temporary_name(checkpoint: Path) -> Path:
    """Where the checkpoint is written before it is sealed."""
    return checkpoint.with_name(f"tmp-{checkpoint.name}")


def seal(checkpoint: Path, fingerprint: dict[str, Any]) -> None:
    """Add the run record to `tmp-checkpoint-N` and give the folder its name."""
    written = temporary_name(checkpoint)
    files = sorted(path for path in written.rglob("*") if path.is_file())
    sizes = {path.relative_to(written).as_posix(): path.stat().st_size for path in files}
    (written / RECORD).write_text(json.dumps({"fingerprint": fingerprint, "files": sizes}, indent=2) + "\n")
    if checkpoint.exists():  # torn, or overtaken by a run that resumed before it
        shutil.rmtree(checkpoint)
    os.replace(written, checkpoint)


def _read_record(checkpoint: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((checkpoint / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"fingerprint", "files"} <= record.keys() else None


def what_is_torn(checkpoint: Path) -> str | None:
    """Why a checkpoint folder cannot be resumed from, in a few words; None if it is complete."""
    record = _read_record(checkpoint)
    if record is None:
        return f"it has no readable {RECORD}"
    for name, size in record["files"].items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None


def list_checkpoints(output_dir: str | os.PathLike[str]) -> list[Path]:
    """The folders named `checkpoint-N`, complete or not, in the order of their steps."""
    folder = Path(output_dir)
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and _CHECKPOINT.fullmatch(path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint's name."""
    match = _CHECKPOINT.fullmatch(checkpoint.name)
    if match is None:
        raise ValueError(f"A checkpoint folder is named checkpoint-N, but this one is {checkpoint}.")
    return int(match.group(1))


def find_last_complete_checkpoint(output_dir: str | os.PathLike[str]) -> Path | None:
    """The complete checkpoint with the highest step; torn ones are passed over."""
    complete = (path for path in reversed(list_checkpoints(output_dir)) if what_is_torn(path) is None)
    return next(complete, None)


def _written_by_another_program(checkpoint: Path) -> bool:
    """Resumable by its looks, but without the record that ours has had since before it got its name."""
    if (checkpoint / RECORD).exists() or not (checkpoint / "trainer_state.json").is_file():
        return False
    return (checkpoint / "optimizer.pt").is_file() or any(checkpoint.glob("global_step*"))


def refuse_foreign_checkpoints(found: Iterable[Path], fingerprint: dict[str, Any]) -> None:
    """Check that every checkpoint found belongs to the run with this fingerprint.

    Raises:
        ForeignCheckpointError: one does not; the sentence names the field that differs.
    """
    for checkpoint in found:
        remedy = "choose another --output_dir, or move that folder away to start anew."
        if _written_by_another_program(checkpoint):
            raise ForeignCheckpointError(
                f"The output folder holds {checkpoint}, which was not written by this program "
                f"(it has no {RECORD}); {remedy}"
            )
        record = _read_record(checkpoint)
        if record is None:
            continue
        theirs = record["fingerprint"]
        for field in sorted(theirs.keys() | fingerprint.keys()):
            if theirs.get(field) != fingerprint.get(field):
                raise ForeignCheckpointError(
                    f"The output folder holds {checkpoint} of another run: {field} was "
                    f"{theirs.get(field)!r} there and is {fingerprint.get(field)!r} now; {remedy}"
                )


def keep_newest(output_dir: str | os.PathLike[str], limit: int | None) -> None:
    """Delete the oldest complete checkpoints beyond `limit`; None or 0 keeps all."""
    complete = [path for path in list_checkpoints(output_dir) if what_is_torn(path) is None]
    if limit is None or limit <= 0:
        return
    for checkpoint in complete[:-limit]:
        shutil.rmtree(checkpoint)
