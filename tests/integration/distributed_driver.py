"""Trains under DDP, ZeRO-2 and ZeRO-3, one after the other in one group of processes.

    torchrun --nproc_per_node 2 tests/integration/distributed_driver.py JOBS.json

JOBS.json maps a name to what `distributed_jobs.Job.driven` says of a run. One that is to be resumed is made
twice: in one go, and, when its last checkpoint and its result are gone, once more from the checkpoint before.
"""

import contextlib
import faulthandler
import gc
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch.distributed as dist
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from llava.train.checkpoint import list_checkpoints
from llava.train.processes import leave_group
from llava.train.train import train
from tests.integration.mini_run import forward_without_kwargs, launch


def forget_the_end(output_dir: Path) -> None:
    """Move the result to `<output_dir>-in-one-go`, and leave the checkpoints but the last."""
    if dist.get_rank() == 0:
        shutil.copytree(output_dir, output_dir.with_name(f"{output_dir.name}-in-one-go"))
        shutil.rmtree(list_checkpoints(output_dir)[-1])
        for result in ("mm_projector.bin", "model.safetensors", "adapter_config.json"):
            (output_dir / result).unlink(missing_ok=True)
    dist.barrier()


@contextlib.contextmanager
def as_in_a_process_of_its_own(argv: list[str]) -> Iterator[None]:
    """Without what transformers left in the environment, by which DDP after ZeRO would be ZeRO again."""
    with mock.patch.dict(os.environ):
        yield
    found = AcceleratorState().distributed_type
    assert (found == DistributedType.DEEPSPEED) == ("--deepspeed" in argv), found


def run(job: dict[str, Any]) -> None:
    plain = forward_without_kwargs() if job["mean"] else contextlib.nullcontext()
    with plain, as_in_a_process_of_its_own(job["argv"]):
        if job["ours"] is None:
            train(argv=job["argv"])
        else:
            launch(job["ours"], job["argv"])


if __name__ == "__main__":
    faulthandler.enable()
    for name, job in json.loads(Path(sys.argv[1]).read_text()).items():
        print(f"begin: {name}", flush=True)
        run(job)
        if job["resume"]:
            forget_the_end(Path(job["argv"][job["argv"].index("--output_dir") + 1]))
            run(job)
        gc.collect()  # engines of this run end here, on all processes alike, not in the middle of the next
        print(f"done: {name}", flush=True)
    dist.barrier()  # nobody hangs up on a process that is still writing
    leave_group()
