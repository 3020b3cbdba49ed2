"""One layer's weights on the device at a time: a model larger than the device can still be measured on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from regap_patch.hosts.decoder import Decoder


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


@contextmanager
def _moved(tensors: list[Tensor], device: torch.device) -> Iterator[None]:
    """Tensors on another device inside; afterwards their old memory again, so that nothing is copied back."""
    kept = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(device)
        yield
    finally:
        for tensor, data in zip(tensors, kept, strict=True):
            tensor.data = data


def placed(module: nn.Module, device: torch.device | None) -> AbstractContextManager[None]:
    """A module's weights are on `device` inside; None leaves them where they are."""
    return nullcontext() if device is None else _moved(_tensors(module), device)


def all_but_layers(
    decoder: Decoder, model: nn.Module, device: torch.device | None
) -> AbstractContextManager[None]:
    """Everything but the decoder's layers is on `device` inside: tower, projector, embedding, final norm."""
    if device is None:
        return nullcontext()
    layers = {id(tensor) for tensor in _tensors(decoder.layers)}
    return _moved([tensor for tensor in _tensors(model) if id(tensor) not in layers], device)


@contextmanager
def brought_in_turn(decoder: Decoder, device: torch.device | None) -> Iterator[None]:
    """Each layer is on `device` while it runs, in a forward pass of the whole model."""
    if device is None:
        yield
        return
    with ExitStack() as hooks:
        for layer in decoder.layers:
            stay = ExitStack()

            def bring(module: nn.Module, args: Any, stay: ExitStack = stay) -> None:
                stay.enter_context(placed(module, device))

            def take_away(module: nn.Module, args: Any, output: Any, stay: ExitStack = stay) -> None:
                stay.close()

            hooks.callback(layer.register_forward_pre_hook(bring).remove)
            hooks.callback(layer.register_forward_hook(take_away).remove)
            hooks.callback(stay.close)
        yield
