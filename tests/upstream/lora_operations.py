"""LoRA training of both packages named `llava` from the same first adapters, whatever drew them.

As in `operations.py`, `llava` is whichever package the running interpreter has.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import zlib
from typing import Any
from unittest import mock

import torch
from torch import nn


def train(*, argv: list[str]) -> dict[str, Any]:
    """One LoRA run from flags, in the order of the data file, from adapters that depend on their names only.

    Returns:
        `losses`, one a step and unrounded; `adapted`: the names of the adapters' weights; `beside`: those of
        what else trains.
    """
    from llava.train import train as module

    seen: dict[str, Any] = {}
    start = module.LLaVATrainer.train

    def installed(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        seen["adapted"] = install_adapters(trainer.model)
        seen["beside"] = [
            name for name, p in trainer.model.named_parameters() if p.requires_grad and "lora_" not in name
        ]
        return start(trainer, *args, **kwargs)

    with _tower_in_run_dtype(), mock.patch.object(module.LLaVATrainer, "train", installed):
        return {"losses": _neighbour("operations").train(argv=argv)["losses"], **seen}


def install_adapters(model: nn.Module) -> list[str]:
    """Overwrite both factors of every adapter; a B of zeros, peft's start, would leave A without a gradient.

    Returns:
        The names of the factors, sorted.
    """
    named = {name: param for name, param in model.named_parameters() if "lora_" in name}
    for name, param in named.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        param.data.copy_(torch.randn(param.shape, generator=generator) / param.shape[1] ** 0.5)
    return sorted(named)


def _neighbour(name: str) -> Any:
    """A module of this folder, which upstream's worker has on its path; the tests have the repository."""
    return importlib.import_module(f"{__package__}.{name}" if __package__ else name)


def _tower_in_run_dtype() -> contextlib.AbstractContextManager[None]:
    """Upstream's worker keeps the tower in float32; ours does anyway."""
    worker = sys.modules["__main__"]
    return getattr(worker, "tower_in_run_dtype", contextlib.nullcontext)()
