"""Which rows of the language model's input are image and which are text, seen on the input itself.

A row is an image row if it is, bit for bit, one that the projector put out, and a text row if the embedding
put it out. So it holds for any way of putting the two together: one block, several images, tiles with a
border cut away and a learned newline between them (which is neither), a Q-Former's queries. The host's own
count of image rows must agree.

Text rows are those behind the last image row, as in the published procedure (arXiv 2410.07167, released
code): the system prompt and what stands before the image are dropped, the role marker of the answer stays.

Axes: L rows of the language model's input, D its width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from regap_patch.errors import MeasureError
from regap_patch.hosts.decoder import Decoder
from regap_patch.hosts.host import Host
from regap_patch.measure.decoder import LayerCall, Stopped, run_until_stopped

LONGEST = "max_position_embeddings"


@dataclass
class Sample:
    """One pair on its way through the layers.

    Attributes:
        name: for messages.
        call: what the next layer is called with.
        image: (P,) int64, positions of image rows.
        text: (T,) int64, positions of text rows.
    """

    name: str
    call: LayerCall
    image: Tensor
    text: Tensor

    def rows(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Image rows (P, D) and text rows (T, D) of a state (1, L, D); views where rows are neighbours."""
        return _take(hidden[0], self.image), _take(hidden[0], self.text)


@dataclass
class Seen:
    """What the hooks saw of one forward pass up to the first layer."""

    projected: list[Tensor] = field(default_factory=list)
    embedded: list[Tensor] = field(default_factory=list)
    input: Tensor | None = None
    call: LayerCall | None = None


def look(
    model: Any, host: Host, projector: nn.Module, decoder: Decoder, arguments: Mapping[str, Any]
) -> Seen:
    """Run the model up to its first layer.

    Args:
        model: without wrappers.
        host: its family.
        projector: of this model.
        decoder: of this model.
        arguments: of the forward pass, batch of one.
    """
    seen = Seen()

    def at_decoder(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        seen.input = kwargs.get("inputs_embeds")

    def at_layer(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        seen.call = LayerCall.of(args, kwargs)
        raise Stopped

    hooks = [
        projector.register_forward_hook(lambda module, args, output: seen.projected.append(output)),
        model.get_input_embeddings().register_forward_hook(
            lambda module, args, output: seen.embedded.append(output)
        ),
        decoder.module.register_forward_pre_hook(at_decoder, with_kwargs=True),
        decoder.layers[0].register_forward_pre_hook(at_layer, with_kwargs=True),
    ]
    run_until_stopped(model, arguments, hooks)
    return seen


def capture(
    model: nn.Module,
    host: Host,
    projector: nn.Module,
    decoder: Decoder,
    arguments: Mapping[str, Any],
    name: str,
) -> Sample:
    """The first layer's arguments for one pair, and which of its rows are what.

    Args:
        model: without wrappers, in evaluation mode.
        host: its family.
        projector: of this model.
        decoder: of this model.
        arguments: of the forward pass: one sample, not padded.
        name: of the pair.

    Raises:
        MeasureError: several samples, no image, no text behind it, rows cut off, or other image rows than the
            host counts.
    """
    ids = arguments["input_ids"]
    if ids.shape[0] != 1:
        raise MeasureError(f"Pairs are measured one at a time, but {name} came as a batch of {len(ids)}.")
    seen = look(model, host, projector, decoder, arguments)
    if not seen.projected:
        raise MeasureError(
            f"A gap has two sides, but {name} showed the model no image: give every pair an image."
        )
    assert seen.call is not None
    call = replace(seen.call, hidden=seen.call.hidden.clone())  # ours to overwrite
    given = call.hidden if seen.input is None else seen.input
    keys = _keys(given[0])
    image = _where(keys, seen.projected, given)
    counted = _count_of_host(model, host, arguments, seen.projected)
    if len(image) != counted:
        raise MeasureError(
            f"{name}: {host.name} counts {counted} image rows, but {len(image)} rows of the language model's "
            f"input are the projector's: shorten the text if rows were cut off (--max_text_tokens), or give "
            f"the host the module whose output is spliced in."
        )
    behind = int(image[-1]) + 1
    text = _where(keys, seen.embedded, given)
    text = text[text >= behind]
    _check_text(model, host, ids[0], len(text), given.shape[1], name)
    return Sample(name, call, image, text)


def _count_of_host(model: Any, host: Host, arguments: Mapping[str, Any], projected: list[Tensor]) -> int:
    if len(projected) != 1:
        raise MeasureError(
            f"The projector of {type(model).__name__} ran {len(projected)} times for one pair, but "
            f"{host.name} sorts the rows of one run: the host must name the module that sees all images."
        )
    everything = torch.ones_like(arguments["input_ids"], dtype=torch.bool)
    return int(host.rows(model, arguments, projected[0], everything).image_count().sum())


def _check_text(model: Any, host: Host, ids: Tensor, found: int, length: int, name: str) -> None:
    image_id = host.image_token(model)
    shown = (ids == image_id).nonzero() if image_id is not None else ids.new_zeros((0, 1))
    expected = len(ids) - 1 - int(shown[-1]) if len(shown) else found
    if expected == 0 or found == 0:
        raise MeasureError(f"{name} has no text behind its image: give every pair a text.")
    if found != expected:
        raise MeasureError(
            f"{name} has {expected} ids behind its image, but {found} of them reached the language model, "
            f"which cut its input at {length} rows: shorten the texts with --max_text_tokens."
        )
    text_config = getattr(model.config, "text_config", None) or model.config
    room = getattr(text_config, LONGEST, None)
    if room is not None and length > room:
        raise MeasureError(
            f"{name} takes {length} positions, but the language model has {room}: shorten the texts with "
            f"--max_text_tokens."
        )


def _keys(rows: Tensor) -> list[bytes]:
    """The bits of each row."""
    flat = rows.detach().contiguous().reshape(-1, rows.shape[-1]).cpu().view(torch.uint8)
    return [row.tobytes() for row in flat.numpy()]


def _where(keys: list[bytes], outputs: list[Tensor], given: Tensor) -> Tensor:
    """Positions of the rows that are among the outputs of a module: (n,) int64, on the device of `given`."""
    known = {key for output in outputs for key in _keys(output.to(given.dtype))}
    return torch.tensor(
        [i for i, key in enumerate(keys) if key in known], device=given.device, dtype=torch.long
    )


def _take(rows: Tensor, positions: Tensor) -> Tensor:
    start, stop = int(positions[0]), int(positions[-1]) + 1
    return rows[start:stop] if stop - start == len(positions) else rows[positions]
