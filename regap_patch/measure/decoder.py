"""Forward passes that show each hidden state of the decoder, or stop there.

Nothing here knows a model family: what follows the layers (a final norm, OPT's `project_out`) is what the
decoder is seen to call.

Axes: L rows of the language model's input, D its width, K layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from regap_patch.errors import MeasureError
from regap_patch.hosts.decoder import Decoder, first

CACHES = ("past_key_values", "past_key_value", "cache_params")


class Stopped(Exception):
    """Ends a forward pass from within a hook."""


@dataclass
class LayerCall:
    """What a layer was called with.

    Attributes:
        hidden: (1, L, D).
        args: what stood after it.
        kwargs: by name, without caches.
    """

    hidden: Tensor
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> LayerCall:
        """Sort the arguments of one call."""
        named: dict[str, Any] = {name: None if name in CACHES else value for name, value in kwargs.items()}
        if "use_cache" in named:
            named["use_cache"] = False
        hidden = args[0] if args else named.pop("hidden_states")
        return cls(hidden, args[1:], named)

    def run(self, layer: nn.Module) -> Tensor:
        """The layer's output: (1, L, D)."""
        return first(layer(self.hidden, *self.args, **self.kwargs))

    def tensors(self) -> Iterator[Tensor]:
        """All tensors held."""
        yield self.hidden
        yield from _tensors_in((self.args, self.kwargs))


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients and no key-value cache inside; everything as it was afterwards."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    configs = {id(found): found for part, _ in modes if (found := getattr(part, "config", None)) is not None}
    cached = [(config, config.use_cache) for config in configs.values() if hasattr(config, "use_cache")]
    try:
        for part, _ in modes:
            part.training = False
        for config, _ in cached:
            config.use_cache = False
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode
        for config, was in cached:
            config.use_cache = was


def run_until_stopped(model: nn.Module, arguments: Mapping[str, Any], hooks: list[Any]) -> bool:
    """One forward pass with hooks that are taken off afterwards.

    Returns:
        Whether one of them stopped it.
    """
    try:
        model(**arguments)
    except Stopped:
        return True
    finally:
        for hook in hooks:
            hook.remove()
    return False


def walk_layers(
    decoder: Decoder,
    model: nn.Module,
    arguments: Mapping[str, Any],
    see: Callable[[int, Tensor], None],
) -> list[nn.Module]:
    """One forward pass that shows each hidden state as `output_hidden_states` of transformers has it.

    Args:
        decoder: of this model.
        model: the model.
        arguments: of its forward.
        see: called with 0 and the first layer's input, 1 to K - 1 and the output of that layer, K and the
            decoder's output, each (1, L, D).

    Returns:
        What the decoder called after its last layer, in order.

    Raises:
        MeasureError: the pass ended without the decoder.
    """
    state: dict[str, Any] = {"layer": 0, "waiting": None}
    tail: list[nn.Module] = []

    def before_first(module: nn.Module, args: Any, kwargs: Any) -> None:
        if state["layer"] == 0:
            see(0, LayerCall.of(args, kwargs).hidden)

    def after_layer(module: nn.Module, args: Any, output: Any) -> None:
        if state["waiting"] is not None:  # another layer follows: that one was not the last
            see(state["layer"], state["waiting"])
        state["layer"] += 1
        state["waiting"] = first(output)
        tail.clear()

    def after_child(module: nn.Module, args: Any, output: Any) -> None:
        if state["waiting"] is not None:
            tail.append(module)

    def after_decoder(module: nn.Module, args: Any, output: Any) -> None:
        see(state["layer"], first(output))
        raise Stopped

    hooks = [decoder.layers[0].register_forward_pre_hook(before_first, with_kwargs=True)]
    hooks += [layer.register_forward_hook(after_layer) for layer in decoder.layers]
    children = [child for child in decoder.module.children() if child is not decoder.layers]
    hooks += [child.register_forward_hook(after_child) for child in children]
    hooks.append(decoder.module.register_forward_hook(after_decoder))
    if not run_until_stopped(model, arguments, hooks):
        raise MeasureError(
            f"Hidden states of {type(model).__name__} were asked for, but its forward pass ended without its "
            f"{type(decoder.module).__name__}: hooks must be reachable (no torch.compile)."
        )
    return tail


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors_in(part)
