"""How a process joins the others of its run, and how it leaves them."""

from __future__ import annotations

import gc
import os
import sys


def connect_deepspeed_on_cpu(argv: list[str]) -> None:
    """On CPUs DeepSpeed must join the processes before transformers reads its configuration."""
    asked = any(flag.split("=")[0] == "--deepspeed" for flag in argv)
    if asked and os.environ.get("WORLD_SIZE") and os.environ.get("DS_ACCELERATOR") == "cpu":
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo")


def leave_group() -> None:
    """End the group of processes, if there is one.

    Otherwise a thread of gloo may still hold a tensor when Python ends, and abort a finished process. A model
    that was wrapped for several processes holds the group too, in cycles with its Trainer: they go first.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return
    gc.collect()
    deepspeed = sys.modules.get("deepspeed")
    if deepspeed is not None and deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()  # also lets go of the groups that DeepSpeed made for itself
    else:
        dist.destroy_process_group()
