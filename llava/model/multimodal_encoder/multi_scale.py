"""Features of one picture at several scales ("S2", arXiv 2403.13043), side by side in width.

A larger scale is cut into squares of the smallest one's size, the tower looks at each, their features are put
together as one plane, and the plane is averaged down to the smallest scale's.

Axes: B batch, P = side * side features of one square, Dv width, s = squares along a scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt

import torch
from torch import Tensor
from torch.nn import functional

DEFAULT_SCALES = "336,672,1008"


def parse_scales(scales: str | Sequence[int], image_size: int) -> list[int]:
    """Sides of the scales in pixels, in rising order.

    Args:
        scales: the sides, or these as text with commas between them.
        image_size: what the tower looks at.

    Raises:
        ValueError: no numbers, the first is not the tower's size, or one is no multiple of it.
    """
    try:
        sides = sorted(int(side) for side in (scales.split(",") if isinstance(scales, str) else scales))
    except ValueError:
        sides = []
    if not sides or sides[0] != image_size or any(side % image_size for side in sides):
        raise ValueError(
            f"s2_scales is '{scales}', but the tower looks at squares of {image_size} pixels; pass "
            f"{image_size} and multiples of it, as '{image_size},{2 * image_size},{3 * image_size}'."
        )
    return sides


def multi_scale_features(
    features_of: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[int]
) -> Tensor:
    """(B, 3, S, S) -> (B, P, len(scales) * Dv).

    Args:
        features_of: from squares (n, 3, side, side) of the smallest scale to features (n, P, Dv).
        images: square; each scale is made from them by bicubic interpolation.
        scales: sides in pixels, the smallest first, each a multiple of it.
    """
    base = scales[0]
    planes = []
    for scale in scales:
        resized = functional.interpolate(images.float(), size=(scale, scale), mode="bicubic").to(images.dtype)
        squares = scale // base
        plane = joined_plane(features_of(cut_squares(resized, squares)), squares)
        if planes:
            plane = functional.adaptive_avg_pool2d(plane.float(), planes[0].shape[-2:]).to(plane.dtype)
        planes.append(plane)
    return torch.cat(planes, dim=1).flatten(2).transpose(1, 2)


def cut_squares(images: Tensor, squares: int) -> Tensor:
    """(B, C, H, W) -> (squares * squares * B, C, H / squares, W / squares), row by row, B fastest."""
    batch, channels, height, width = images.shape
    cut = images.reshape(batch, channels, squares, height // squares, squares, width // squares)
    return cut.permute(2, 4, 0, 1, 3, 5).reshape(-1, channels, height // squares, width // squares)


def joined_plane(features: Tensor, squares: int) -> Tensor:
    """(squares * squares * B, P, Dv) -> (B, Dv, squares * side, squares * side)."""
    count, positions, width = features.shape
    side, batch = isqrt(positions), count // squares**2
    grid = features.reshape(squares, squares, batch, side, side, width)
    return grid.permute(2, 5, 0, 3, 1, 4).reshape(batch, width, squares * side, squares * side)
