"""The forms in which a batch of images may come, as one stack of tiles and the number of tiles per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Images = Tensor | Sequence[Tensor | None]
"""(N, 3, H, W): one tile per image. (N, tiles, 3, H, W), or a sequence of (3, H, W), (tiles, 3, H, W) or None
(the slot of a text-only row, without an image)."""


def to_slots(images: Images) -> tuple[Tensor | None, list[int]]:
    """All tiles (M, 3, H, W), None if there are none, and the number of tiles of each slot.

    Raises:
        ValueError: a tensor of another rank.
    """
    if isinstance(images, Tensor) and images.ndim == 4:
        return images, [1] * len(images)
    if isinstance(images, Tensor) and images.ndim != 5:
        raise ValueError(f"images has {images.ndim} axes; pass (N, 3, H, W), (N, tiles, 3, H, W) or a list.")
    tiles = [None if image is None else image[None] if image.ndim == 3 else image for image in images]
    counts = [0 if image is None else len(image) for image in tiles]
    present = [image for image in tiles if image is not None]
    return (torch.cat(present) if present else None), counts
