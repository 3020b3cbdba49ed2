"""Distances of near-equal large means need float32: bfloat16 keeps two to three decimal digits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay as they are (and stay the same tensor)."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Products inside keep the dtype of their inputs, whatever autocast the caller is under."""
    if device.type == "meta":  # has no autocast to switch off
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def float64(values: Tensor) -> Tensor:
    """Float64 for sums that run over a whole training; on the host where the device has none (MPS)."""
    return on_a_device_with_float64(values).double()


def on_a_device_with_float64(values: Tensor) -> Tensor:
    """The host's copy where the device has no float64 (MPS), else the same tensor."""
    return values.cpu() if values.device.type == "mps" else values


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Float32 products inside are of float32 inputs: no TF32, no bfloat16 passes, no autocast."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with without_autocast(device):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
