"""`train` with FlashAttention-2 where it is installed, else with PyTorch's own attention."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if (
    __name__ == "__main__"
):  # as a script (`deepspeed llava/train/train_mem.py`), only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def memory_efficient_attention() -> str:
    """The name of the attention to ask transformers for.

    Without this look, transformers would stop, or fetch a kernel from the hub.
    """
    if importlib.util.find_spec("flash_attn") is not None:
        return "flash_attention_2"
    from llava.train.train import rank0_print

    rank0_print("flash-attn is not installed, so attention runs on PyTorch's sdpa; the results are the same.")
    return "sdpa"


if __name__ == "__main__":
    from llava.train.train import run_as_command

    run_as_command(memory_efficient_attention())
