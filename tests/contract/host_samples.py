"""What the tiny hosts are shown: samples with ragged captions, several images or none, as ids and pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BOS, EOS, PAD, NEWLINE, IMAGE, VOCABULARY = 1, 2, 0, 13, 63, 64
IMG = -1  # an image, in the samples below
Samples = list[tuple[list[int], list[int]]]

RAGGED: Samples = [
    ([BOS, IMG], [40, 41, 42, 43, NEWLINE]),
    ([BOS, IMG], [50, NEWLINE]),
    ([BOS, IMG], [53, 54, NEWLINE]),
]
MIXED: Samples = [
    ([BOS, 30, 31], [44, 45, EOS]),
    ([BOS, 30, IMG, 31], [46, EOS]),
    ([BOS, IMG, 33, IMG, 34], [47, 48, 49, EOS]),
    ([BOS, 35, IMG, IMG, 36], [51, 52, EOS]),
]
TEXT_ONLY: Samples = [([BOS, 30, 31], [44, 45, EOS]), ([BOS, 32], [46, EOS])]


def padded(samples: Samples, image: Callable[[int], list[int]]) -> dict[str, Tensor]:
    """`input_ids`, `labels` and `attention_mask`, with the ids that stand for the image of each number."""
    ids, labels, seen = [], [], 0
    for prompt, answer in samples:
        row = []
        for word in prompt:
            row += image(seen) if word == IMG else [word]
            seen += word == IMG
        ids.append(row + answer)
        labels.append([-100] * len(row) + answer)

    def pad(rows: list[list[int]], value: int) -> Tensor:
        length = max(map(len, rows))
        return torch.tensor([row + [value] * (length - len(row)) for row in rows])

    mask = pad([[1] * len(row) for row in ids], 0)
    return {"input_ids": pad(ids, PAD), "labels": pad(labels, -100), "attention_mask": mask}


def pixels(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images_in(samples: Samples) -> int:
    return sum(prompt.count(IMG) for prompt, _ in samples)
