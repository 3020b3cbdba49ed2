"""A picture as a grid of tiles: which grid fits it, and which patches show it and not its border.

All of it is worked out on the device, since the models' own way to the same numbers waits for it. Axes: N
images of the batch, Q tiles of all images, P patches of a tile, K grids to choose from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regap_patch.gap.precision import float64


@dataclass(frozen=True)
class Grids:
    """Each image's grid, in patches; (N,) int64 on one device.

    Attributes:
        across: tiles side by side.
        tiles: tiles of the grid and the overview.
        top: rows of patches that are border, above and again below.
        left: columns of patches that are border, left and again right.
        tokens: what the image takes in the sequence: kept patches, newlines and the overview.
    """

    across: Tensor
    tiles: Tensor
    top: Tensor
    left: Tensor
    tokens: Tensor


def chosen_resolution(sizes: Tensor, resolutions: Tensor) -> Tensor:
    """For each image, the resolution that keeps most of it, and of those the one that wastes least.

    Args:
        sizes: (N, 2) float64, height and width of each image.
        resolutions: (K, 2) float64, height and width to choose from.

    Returns:
        (N, 2) float64. Of equals the first.
    """
    scale = (resolutions / sizes[:, None]).amin(2, keepdim=True)
    fitted = (sizes[:, None] * scale).floor().prod(2)
    kept = torch.minimum(fitted, sizes.prod(1, keepdim=True))
    wasted = resolutions.prod(1) - kept
    best = torch.where(kept == kept.amax(1, keepdim=True), wasted, float("inf"))
    order = torch.arange(len(resolutions), device=sizes.device)
    first = torch.where(best == best.amin(1, keepdim=True), order, len(resolutions)).amin(1)
    return resolutions.index_select(0, first)


def grids(sizes: Tensor, resolutions: Tensor, tile: int, side: int, *, slack: float = 0.0) -> Grids:
    """Lay out each image.

    Args:
        sizes: (N, 2), height and width of each image.
        resolutions: (K, 2), height and width in pixels, multiples of `tile`.
        tile: pixels along the side of a tile.
        side: patches along the side of a tile.
        slack: added before a length is cut to a whole number of patches.
    """
    device, sizes = sizes.device, float64(sizes)
    shape = torch.div(chosen_resolution(sizes, float64(resolutions)), tile, rounding_mode="floor")
    full = shape * side
    ratio, full_ratio = sizes[:, 1] / sizes[:, 0], full[:, 1] / full[:, 0]
    kept_high = (sizes[:, 0] * (full[:, 1] / sizes[:, 1]) + slack).floor()
    kept_wide = (sizes[:, 1] * (full[:, 0] / sizes[:, 0]) + slack).floor()
    flat = ratio > full_ratio
    top = torch.where(flat, ((full[:, 0] - kept_high) / 2).floor(), 0.0)
    left = torch.where(flat, 0.0, ((full[:, 1] - kept_wide) / 2).floor())
    tokens = side * side + (full[:, 0] - 2 * top) * (full[:, 1] - 2 * left + 1)
    tiles = shape.prod(1) + 1
    return Grids(*(part.long().to(device) for part in (shape[:, 1], tiles, top, left, tokens)))


def kept_patches(grid: Grids, image: Tensor, number: Tensor, side: int) -> Tensor:
    """The patches that are no border: (Q, P) bool.

    Args:
        grid: of each image.
        image: (Q,) int64, the image of each tile.
        number: (Q,) int64, where in its grid the tile lies, row by row; -1 is the overview, which has no
            border.
        side: patches along the side of a tile.
    """
    across, top, left = (part.index_select(0, image) for part in (grid.across, grid.top, grid.left))
    down = (grid.tiles - 1).index_select(0, image) // across
    patch = torch.arange(side, device=image.device)
    y = (number // across)[:, None] * side + patch
    x = (number % across)[:, None] * side + patch
    inside_y = (y >= top[:, None]) & (y < (down * side - top)[:, None])
    inside_x = (x >= left[:, None]) & (x < (across * side - left)[:, None])
    return (inside_y[:, :, None] & inside_x[:, None, :]).flatten(1) | (number < 0)[:, None]
