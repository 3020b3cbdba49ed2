"""MIR by storing every hidden state, with positions worked out by hand: what layer by layer is held against.

The states come from the model itself (`output_hidden_states`), and which rows are image and which are text
from the samples; only the statistics are the product's. Runs under transformers 5 and 4.37.2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.contract.host_samples import BOS, EOS, IMG, NEWLINE, Samples
from tests.contract.tiny_hosts import OLD, PATCH, RESOLUTIONS, SIDE, SIZES, P

MEASURED: Samples = [
    ([BOS, 30, IMG, 31], [40, 41, 42, 43, EOS]),
    ([BOS, IMG, 32], [50, 51, NEWLINE]),
    ([BOS, 33, 34, IMG], [53, 54, 55, 56, 57, 41, EOS]),
    ([BOS, IMG], [44, 45]),
]
SEVERAL: Samples = [([BOS, 35, IMG, 36, IMG, 37], [47, 48, 49]), ([BOS, IMG, IMG], [51, 52, EOS])]


def batches(row: Any, samples: Samples) -> list[dict[str, Tensor]]:
    """Forward arguments of each sample alone, without labels."""
    made = [row.collate([sample], seed) for seed, sample in enumerate(samples)]
    return [{name: value for name, value in data.items() if name != "labels"} for data in made]


def image_kinds(row: Any, model: Any, data: dict[str, Tensor], number: int) -> list[str]:
    """What each position of one image holds; the newlines of LLaVA-NeXT are no image rows."""
    if row.name != "llava_next":
        return ["image"] * len(row.image_rows(model, data, number))
    from transformers.models.llava_next import modeling_llava_next as peer

    high, wide = peer.get_anyres_image_grid_shape(SIZES[number], RESOLUTIONS, SIDE)
    grid = torch.zeros(1, high * SIDE // PATCH, wide * SIDE // PATCH)
    _, kept_high, kept_wide = peer.unpad_image(grid, SIZES[number]).shape
    return ["image"] * P + (["image"] * kept_wide + ["newline"]) * kept_high


def positions(row: Any, model: Any, sample: Any, data: dict[str, Tensor]) -> tuple[list[int], list[int]]:
    """Positions of image rows, and of the text rows behind the last of them."""
    prompt, answer = sample
    words = [*prompt, *answer]
    if OLD and row.host == "blip_2":  # the image stands in front
        words = [IMG] * prompt.count(IMG) + [word for word in words if word != IMG]
    kinds: list[str] = []
    seen = 0
    for word in words:
        kinds += image_kinds(row, model, data, seen) if word == IMG else ["text"]
        seen += word == IMG
    image = [place for place, kind in enumerate(kinds) if kind == "image"]
    return image, [place for place, kind in enumerate(kinds) if kind == "text" and place > image[-1]]


def hidden_states(model: Any, data: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """All K + 1 states of one sample, (1, L, D) each, as the model itself gives them."""
    with torch.no_grad():
        output = model(**data, output_hidden_states=True)
    for part in (output, getattr(output, "language_model_outputs", None)):
        found = getattr(part, "hidden_states", None)
        if found is not None:
            return found
    raise AssertionError("the model gives no hidden states")


def stored(row: Any, model: Any, samples: Samples, data: list[dict[str, Tensor]]) -> list[tuple[Any, Any]]:
    """(image rows, text rows) of layers 0..K, all held at once, one tensor a sample."""
    states = [hidden_states(model, one) for one in data]
    places = [positions(row, model, sample, one) for sample, one in zip(samples, data, strict=True)]
    return [
        tuple(
            [state[layer][0, place[side]] for state, place in zip(states, places, strict=True)]
            for side in (0, 1)
        )
        for layer in range(len(states[0]))
    ]
