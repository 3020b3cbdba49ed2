"""All pairs through one layer, then all through the next: one layer's states are ever held, not K of them.

The layers are called one at a time with the arguments that the first of them was given. Whether a model
allows that is not believed but seen: before anything is measured, the longest and the shortest pair go once
through the whole model and once through its layers, one by one and in turn, and every state must agree in
every bit.

Axes: K layers, L rows of the language model's input, D its width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regap_patch.hosts.decoder import Decoder, first
from regap_patch.measure.capture import Sample
from regap_patch.measure.decoder import LayerCall, walk_layers
from regap_patch.measure.offload import brought_in_turn, placed


class Ledger:
    """Bytes of the tensors that the collector holds.

    Attributes:
        now: at this moment.
        peak: the most so far.
    """

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0

    def take(self, size: int) -> None:
        """Note that `size` more bytes are held (fewer, if negative)."""
        self.now += size
        self.peak = max(self.peak, self.now)


def held_by(samples: Sequence[Sample]) -> int:
    """Bytes of the states and arguments of these samples; what they share counts once."""
    stored = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for sample in samples
        for tensor in sample.call.tensors()
    }
    return sum(stored.values())


def why_not(
    decoder: Decoder,
    model: nn.Module,
    tried: Sequence[tuple[Sample, Mapping[str, Any]]],
    device: torch.device | None = None,
) -> tuple[str, list[nn.Module]]:
    """Whether the layers can be called one by one, on two samples in turn.

    Two, because a layer that keeps something for the next one would be right on one sample alone.

    Args:
        decoder: of this model.
        model: without wrappers, in evaluation mode.
        tried: samples as `capture` left them, which are not changed, and the arguments of their forward
            passes.
        device: where each layer runs; None for where it is.

    Returns:
        Why not, in words, empty if they can; and what the decoder calls after its last layer.
    """
    whole: list[list[str]] = []
    tail: list[nn.Module] = []
    for _, arguments in tried:
        seen: list[str] = []
        with brought_in_turn(decoder, device):
            tail = walk_layers(
                decoder,
                model,
                arguments,
                lambda layer, state, seen=seen: seen.append(_digest(state)),  # type: ignore[misc]
            )
        whole.append(seen)
    if len(whole[0]) != len(decoder.layers) + 1:
        return f"{len(decoder.layers)} layers ran {len(whole[0]) - 1} times", tail
    calls = [sample.call for sample, _ in tried]
    try:
        for number, layer in enumerate(decoder.layers, 1):
            with placed(layer, device):
                states = [call.run(layer) for call in calls]
            if number == len(decoder.layers):
                states = [finish(tail, state) for state in states]
            if [_digest(state) for state in states] != [seen[number] for seen in whole]:
                return f"layer {number} alone gives other bits than inside the model", tail
            calls = [
                LayerCall(state, call.args, call.kwargs) for state, call in zip(states, calls, strict=True)
            ]
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        return f"a layer cannot be called alone ({type(error).__name__}: {error})", tail
    return "", tail


def states_by_layer(
    decoder: Decoder,
    samples: Sequence[Sample],
    tail: Sequence[nn.Module],
    ledger: Ledger,
    device: torch.device | None = None,
    moved: Callable[[int], None] = lambda layer: None,
) -> Iterator[list[Tensor]]:
    """The states of all samples, (1, L, D) each: of layer 0 (the input), then of 1 to K.

    The last is after what the decoder calls behind its layers, as transformers' `hidden_states` have it. The
    samples' calls are used up: each state overwrites the one before.

    Args:
        decoder: of the model.
        samples: as `capture` left them.
        tail: from `why_not`.
        ledger: told of every byte held.
        device: where one layer at a time is brought; None for where it is.
        moved: told when a layer is through.
    """
    ledger.take(held_by(samples) - ledger.now)
    yield [sample.call.hidden for sample in samples]
    for number, layer in enumerate(decoder.layers, 1):
        last = number == len(decoder.layers)
        with placed(layer, device):
            for sample in samples:
                state = sample.call.run(layer)
                if last:
                    state = finish(tail, state)
                ledger.take(state.nbytes)
                ledger.take(-keep(sample.call, state))
        moved(number)
        yield [sample.call.hidden for sample in samples]


def keep(call: LayerCall, state: Tensor) -> int:
    """Put a state in the place of the one before, in its memory if it fits; bytes that are free again."""
    before = call.hidden
    if before.shape == state.shape and before.dtype == state.dtype and before.device == state.device:
        before.copy_(state)  # memory that is never given back cannot be torn into pieces
        return state.nbytes
    call.hidden = state
    return before.nbytes


def finish(tail: Sequence[nn.Module], state: Tensor) -> Tensor:
    """What the decoder does to its last layer's output."""
    for module in tail:
        state = first(module(state))
    return state


def _digest(state: Tensor) -> str:
    flat = state.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().tobytes()).hexdigest()
