"""Trains under DDP, ZeRO-2 and ZeRO-3, one after the other in one group of processes.

    torchrun --nproc_per_node 2 tests/integration/distributed_driver.py JOBS.json

JOBS.json maps a name to the flags of a run. Every run is made twice: in one go, and, when its last checkpoint
and its result are gone, once more from the checkpoint before.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch.distributed as dist

from llava.train.checkpoint import list_checkpoints
from llava.train.train import train


def forget_the_end(output_dir: Path) -> None:
    """Move the result to `<output_dir>-in-one-go`, and leave the checkpoints but the last."""
    if dist.get_rank() == 0:
        shutil.copytree(output_dir, output_dir.with_name(f"{output_dir.name}-in-one-go"))
        shutil.rmtree(list_checkpoints(output_dir)[-1])
        for result in ("mm_projector.bin", "model.safetensors"):
            (output_dir / result).unlink(missing_ok=True)
    dist.barrier()


if __name__ == "__main__":
    jobs = json.loads(Path(sys.argv[1]).read_text())
    os.environ["DS_ACCELERATOR"] = "cpu"
    for name, argv in jobs.items():
        train(argv=argv)
        forget_the_end(Path(argv[argv.index("--output_dir") + 1]))
        train(argv=argv)
        print(f"done: {name}", flush=True)
    dist.barrier()  # nobody hangs up on a process that is still writing
    dist.destroy_process_group()
