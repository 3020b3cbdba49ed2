"""Save before the first step, with next to nothing in the tensors: a run must not fail when it is done.

The very code of a save writes a folder of this run: its configuration, the settings of generation, the
tokenizer, and weights under all their names, each of a single number. So it costs no copy of a weight and no
talk between processes, and takes about as long for 7B as for a tiny model. What it cannot find is what
depends on the numbers. Then the disk is asked for the bytes of the real saves. Nothing is left behind.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llava.train import checkpoint as checkpoints
from llava.train import lora_files, saved_files
from llava.train.memory_report import plan_of, readable, size_of

if TYPE_CHECKING:
    from llava.train.llava_trainer import LLaVATrainer


class SaveRehearsalError(RuntimeError):
    """A save of this run would fail."""


class StandIns:
    """A model's parameters by name, with one number in place of each tensor."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """As the model's, in dtype and in whether they train."""
        for name, parameter in self.model.named_parameters():
            one = torch.zeros(1, dtype=parameter.dtype)
            yield name, nn.Parameter(one, requires_grad=parameter.requires_grad)

    def state_dict(self) -> dict[str, Tensor]:
        """As the model's; tensors that share memory share their stand-in."""
        ones: dict[Any, Tensor] = {}
        state = self.model.state_dict(keep_vars=True)
        return {
            name: ones.setdefault(id(tensor), torch.zeros(1, dtype=tensor.dtype))
            for name, tensor in state.items()
        }


def rehearse_save(trainer: LLaVATrainer) -> None:
    """Go through a save of this run, and ask the disk for the bytes of the real ones; the first process does.

    Raises:
        SaveRehearsalError: a save would fail; the sentence says why.
    """
    if not trainer.args.should_save:
        return
    output_dir = Path(trainer.args.output_dir)
    start = time.monotonic()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".save-rehearsal-", dir=output_dir) as folder:
            _write(trainer, Path(folder))
        needed, free = bytes_to_come(trainer), shutil.disk_usage(output_dir).free
    except SaveRehearsalError:
        raise
    except Exception as error:
        raise SaveRehearsalError(
            f"The save of this run was tried before the first step and would fail ({type(error).__name__}: "
            f"{error}); nothing was trained, so mend that and start again."
        ) from error
    if needed > free:
        raise SaveRehearsalError(
            f"The saves of this run take {readable(needed)} on the disk of {output_dir}, where "
            f"{readable(free)} are free: make room, or pass another --output_dir or a smaller "
            "--save_total_limit."
        )
    print(
        f"Saving was rehearsed in {time.monotonic() - start:.1f} s: the saves take {readable(needed)} of the "
        f"disk at a time, where {readable(free)} are free.",
        flush=True,
    )


def _write(trainer: LLaVATrainer, folder: Path) -> None:
    """A save of stand-ins through the trainer's own path, and a look at the names in it."""
    stand_ins = StandIns(trainer.model)
    part = trainer.trains_a_part
    trainer._save(str(folder), state_dict=trainer.part_state(stand_ins) if part else stand_ins.state_dict())
    if trainer.trains_adapters:
        lora_files.refuse_other_names(trainer.model, lora_files.read_adapter(folder), folder)
    elif not part:
        saved_files.refuse_other_names(trainer.model, saved_files.read_whole(folder), folder)


def bytes_to_come(trainer: LLaVATrainer) -> float:
    """What the disk must hold at once: the final model and the checkpoints, one more than are kept.

    Where all are kept, the next one: how many there will be is the user's care.
    """
    args = trainer.args
    plan = plan_of(trainer, positions=0)
    final = plan.gradients if trainer.trains_a_part else plan.weights
    if trainer.trains_adapters:
        params = trainer.model.named_parameters()
        frozen = lora_files.frozen_but_saved(params, getattr(args, "added_tokens", False))
        final += sum(size_of(param) for _, param in frozen)
    if str(getattr(args.save_strategy, "value", args.save_strategy)) == "no":
        return final
    checkpoint = final + (0 if args.save_only_model else plan.states)
    there = len(checkpoints.list_checkpoints(args.output_dir))
    kept = max(0, (args.save_total_limit or 0) - there)
    return final + (kept + 1) * checkpoint
