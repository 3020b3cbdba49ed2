"""Hidden states of a decoder, read and changed.

The state of layer k, from 0 to K - 1, is what that layer puts out; the decoder's final norm comes after the
last. Axes: B batch, L positions of one pass, K layers, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch

from regap_patch.errors import ConfigError
from regap_patch.hosts.decoder import Decoder, find_decoder, first

if TYPE_CHECKING:
    from torch import Tensor

    from regap_patch.defenses.protocol import Model, Turn

_reading: ContextVar[bool] = ContextVar("_reading", default=False)


def decoder_of(model: Model) -> Decoder:
    """The decoder of a loaded model.

    Raises:
        UnsupportedModelError: it keeps its layers in no list.
    """
    assert model.host is not None, "a defence that needs layers is refused behind an address"
    return find_decoder(model.host, model.module)


@contextmanager
def moved(decoder: Decoder, changes: Mapping[int, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Within this, what a layer puts out goes through a change before the next layer gets it.

    Args:
        decoder: of the model.
        changes: number of a layer -> state (B, L, D) to state. In a prefill L is the length of the prompts,
            padded on the left; in a step of decoding with a cache it is 1. The state is the model's own
            tensor: give another, or the same one unchanged.
    """

    def hook(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
        def after(module: Any, args: Any, output: Any) -> Any:
            if _reading.get():
                return output
            state = first(output)
            other = change(state)
            if other is state:
                return output
            return other if torch.is_tensor(output) else (other, *output[1:])

        return after

    hooks = []
    try:
        for number, change in changes.items():
            hooks.append(decoder.layers[number].register_forward_hook(hook(change)))
        yield
    finally:
        for handle in hooks:
            handle.remove()


def last_states(model: Model, decoder: Decoder, turns: Sequence[Turn]) -> Tensor:
    """The model's own states at the last position of each prompt: (B, K, D) float32.

    No defence's changes are in them. One prefill for each pass that `model.together` makes of the turns.
    """
    found: dict[int, Tensor] = {}
    for places in model.together(turns):
        inputs = model.inputs([turns[place] for place in places])
        found |= dict(zip(places, read_last(model.module, decoder, inputs), strict=True))
    return torch.stack([found[place] for place in range(len(turns))])


def read_last(module: Any, decoder: Decoder, inputs: Mapping[str, Any]) -> Tensor:
    """States (B, K, D) float32 at the last position of one pass, whose prompts end together."""
    seen: list[Tensor] = []

    def look(layer: Any, args: Any, output: Any) -> None:
        seen.append(first(output)[:, -1].detach().float())

    hooks = [layer.register_forward_hook(look) for layer in decoder.layers]
    token = _reading.set(True)
    try:
        with torch.no_grad():
            module(**inputs, use_cache=False)
    finally:
        _reading.reset(token)
        for handle in hooks:
            handle.remove()
    return torch.stack(seen, dim=1)


def layer_numbers(text: str, count: int) -> list[int]:
    """Layers by their numbers from 1, as in `regap mir`: layer k puts out what it calls state k.

    Args:
        text: "all", or numbers and ranges with commas between: "3,8-12".
        count: K.

    Returns:
        Numbers from 0, sorted.

    Raises:
        ConfigError: text that names none, or a layer that there is not.
    """
    if text.strip() == "all":
        return list(range(count))
    found: set[int] = set()
    try:
        for part in text.split(","):
            low, dash, high = part.partition("-")
            found.update(range(int(low), int(high if dash else low) + 1))
    except ValueError:
        found.clear()
    if not found or min(found) < 1 or max(found) > count:
        raise ConfigError(
            f"Layers {text!r} were asked for, but this decoder has 1 to {count}: write all, or numbers and "
            f"ranges with commas between."
        )
    return sorted(number - 1 for number in found)
