"""A watch over tensor operations: what a training forward may not do."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoWaiting(TorchDispatchMode):
    """Raises where the host would have to wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        waits = ("_local_scalar_dense", "nonzero", "masked_select")
        mask_index = name.startswith(("index", "_index_put")) and any(
            torch.is_tensor(part) and part.dtype in (torch.bool, torch.uint8)
            for arg in args[1:]
            if isinstance(arg, (list, tuple))
            for part in arg
        )
        if name in waits or "unique" in name or mask_index:
            raise AssertionError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))
