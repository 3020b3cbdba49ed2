"""One copy of the weights that two loaded models have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shared:
    """What two models share.

    Attributes:
        bytes_shared: of weights that are held once for both.
        bytes_own: of the second model's other weights.
        own: names of those.
    """

    bytes_shared: int
    bytes_own: int
    own: tuple[str, ...]


@torch.no_grad()
def share_weights(first: nn.Module, second: nn.Module, device: Any = None) -> Shared:
    """Let the second model use the first one's weights wherever they are the same, bit for bit.

    Two LLaVAs with one language model and two projectors then cost one language model. Neither may be trained
    afterwards. Load the second into main memory and name the device: only what differs is moved there.

    Args:
        first: stays as it is.
        second: another model, with names of weights like the first one's or not.
        device: where the second's own weights go; None for where they are.
    """
    shared, owned, own = 0, 0, []
    others = dict(first.named_modules())
    for path, module in second.named_modules():
        twin = others.get(path)
        for store in ("_parameters", "_buffers"):
            for name, value in getattr(module, store).items():
                if value is None:
                    continue
                same = None if twin is None else getattr(twin, store).get(name)
                size = value.nelement() * value.element_size()
                if same is not None and _equal(same, value):
                    getattr(module, store)[name] = same
                    shared += size
                else:
                    owned += size
                    own.append(f"{path}.{name}".lstrip("."))
                    if device is not None and value.device != torch.device(device):
                        value.data = value.data.to(device)
    return Shared(shared, owned, tuple(own))


def _equal(one: Tensor, other: Tensor) -> bool:
    if one is other:
        return True
    alike = one.shape == other.shape and one.dtype == other.dtype and type(one) is type(other)
    return alike and torch.equal(one, other.to(one.device))
