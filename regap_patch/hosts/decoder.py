"""The decoder inside a model: the largest list of modules that is neither tower nor projector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regap_patch.errors import MeasureError
from regap_patch.hosts.host import Host, follow


@dataclass(frozen=True)
class Decoder:
    """Where the hidden states are.

    Attributes:
        module: the module that is given the language model's input and runs the layers.
        layers: its K layers in order.
    """

    module: nn.Module
    layers: nn.ModuleList


def first(output: Any) -> Tensor:
    """The hidden state that a layer or a decoder returns, alone or first of a tuple or ModelOutput."""
    state: Tensor = output if torch.is_tensor(output) else output[0]
    return state


def find_decoder(host: Host, model: nn.Module) -> Decoder:
    """The largest list of modules outside of the projector and of `host.beside_lm`, and its owner.

    Args:
        host: the model family.
        model: the model without wrappers.

    Raises:
        MeasureError: there is none.
    """
    beside: set[nn.Module] = set()
    for path in (*host.projector, *host.beside_lm):
        found = follow(model, path)
        for part in found if isinstance(found, list) else [found]:
            if isinstance(part, nn.Module):
                beside.update(part.modules())
    candidates = [
        Decoder(owner, layers)
        for owner in model.modules()
        for layers in owner.children()
        if isinstance(layers, nn.ModuleList) and len(layers) and layers not in beside
    ]
    if not candidates:
        raise MeasureError(
            f"Hidden states of {type(model).__name__} were asked for, but outside of its tower and projector "
            f"it has no list of layers: its language model must keep its layers in an nn.ModuleList."
        )
    return max(candidates, key=lambda found: sum(part.numel() for part in found.layers.parameters()))
