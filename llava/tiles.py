"""From a picture to tiles (LLaVA v1.6, "anyres"): the whole of it, and the parts of an enlarged copy."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llava.model.anyres import Pinpoints, check_tiling, parse_pinpoints, select_best_resolution

if TYPE_CHECKING:
    from PIL.Image import Image


def tile_size(processor: Any) -> int:
    """Pixels along a tile: `crop_size` of CLIP's processor, `size` of SigLIP's, which never crops."""
    crop = getattr(processor, "crop_size", None)
    return (crop or processor.size)["height"]


def resize_and_pad_image(image: Image, target_resolution: tuple[int, int]) -> Image:
    """Fit a picture into (width, height), keeping its shape, in the middle of a black ground."""
    from PIL import Image as pil

    target_width, target_height = target_resolution
    width, height = image.size
    across, down = target_width / width, target_height / height
    if across < down:
        fitted = (target_width, min(ceil(height * across), target_height))
    else:
        fitted = (min(ceil(width * down), target_width), target_height)
    ground = pil.new("RGB", target_resolution, (0, 0, 0))
    ground.paste(image.resize(fitted), ((target_width - fitted[0]) // 2, (target_height - fitted[1]) // 2))
    return ground


def divide_to_patches(image: Image, patch_size: int) -> list[Image]:
    """Squares of `patch_size` pixels, row by row."""
    width, height = image.size
    return [
        image.crop((left, top, left + patch_size, top + patch_size))
        for top in range(0, height, patch_size)
        for left in range(0, width, patch_size)
    ]


def process_anyres_image(image: Image, processor: Any, grid_pinpoints: Pinpoints) -> Tensor:
    """A picture as the tower sees it in tiles.

    Args:
        image: RGB picture.
        processor: of the vision tower.
        grid_pinpoints: sizes to choose from, multiples of the tower's.

    Returns:
        (1 + columns * rows, 3, H, W) float32; tile 0 is the whole picture, stretched to a square.

    Raises:
        ValueError: sizes that cannot be cut into tiles.
    """
    tile = tile_size(processor)
    check_tiling(grid_pinpoints, tile)
    best = select_best_resolution(image.size, parse_pinpoints(grid_pinpoints))
    side = processor.size.get("shortest_edge") or tile
    parts = [image.resize((side, side)), *divide_to_patches(resize_and_pad_image(image, best), tile)]
    return torch.stack([processor.preprocess(part, return_tensors="pt")["pixel_values"][0] for part in parts])
