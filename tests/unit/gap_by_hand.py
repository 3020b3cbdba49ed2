"""The gap of a batch, sample by sample in float64: the reference that the patch is held against."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.unit.toy_llava import BOS, EOS, IMAGE, NEWLINE


def clouds(model: Any, batch: dict[str, Any]) -> list[tuple[Tensor, Tensor] | None]:
    """Image rows and text rows of each sample; None where one of them is missing."""
    with torch.no_grad():
        images = batch["images"]
        patches = images.flatten(2)[..., :12].reshape(len(images), 3, 4)
        features = model.model.mm_projector(model.model.vision_tower(patches)).double()
        table = model.model.embed_tokens.weight.double()
    found, slot = [], 0
    for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        shown = ids.count(IMAGE)
        image = features[slot : slot + shown].flatten(0, 1)
        slot += max(shown, 1)
        said = [
            word for word, label in zip(ids, labels, strict=True) if label != -100 and word not in (BOS, EOS)
        ]
        if said and said[-1] == NEWLINE:
            said.pop()
        found.append((image, table[said]) if shown and said else None)
    return found


def centroid(pair: tuple[Tensor, Tensor]) -> Tensor:
    return (pair[0].mean(0) - pair[1].mean(0)).norm()


def reduced(model: Any, batch: dict[str, Any], num_items: int | None = None) -> float:
    """The centroid gap, weighted by targets."""
    counts = [sum(label != -100 for label in row[1:]) for row in batch["labels"].tolist()]
    total = sum(
        count * centroid(pair).item()
        for count, pair in zip(counts, clouds(model, batch), strict=True)
        if pair is not None
    )
    return total / (sum(counts) if num_items is None else num_items)
