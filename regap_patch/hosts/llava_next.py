"""LLaVA-NeXT of transformers: an image is a small overview and the tiles of a grid that fits its shape.

What counts as an image row: a projector output that reaches the language model. That is every patch of the
overview, and those patches of the grid that are not the border by which the image was padded to the grid. The
learned newline after each row of the grid is a parameter of its own, no projector output, and does not count.

All of it is worked out on the device, since the model's own way to the same numbers waits for it. Axes: N
images of the batch, Q tiles of all images, P patches of a tile, K grids to choose from, D width of the
language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regap_patch.gap.precision import float64
from regap_patch.hosts.host import Host, ImageSlots
from regap_patch.hosts.huggingface import image_token_of, owner_of


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


def grids(sizes: Tensor, resolutions: Tensor, tile: int, side: int) -> Grids:
    """Lay out each image.

    Args:
        sizes: (N, 2), height and width of each image.
        resolutions: (K, 2), height and width in pixels, multiples of `tile`.
        tile: pixels along the side of a tile.
        side: patches along the side of a tile.
    """
    device, sizes = sizes.device, float64(sizes)
    shape = torch.div(chosen_resolution(sizes, float64(resolutions)), tile, rounding_mode="floor")
    full = shape * side
    ratio, full_ratio = sizes[:, 1] / sizes[:, 0], full[:, 1] / full[:, 0]
    # a product that is whole but for its last digit is whole
    kept_high = (sizes[:, 0] * (full[:, 1] / sizes[:, 1]) + 5e-8).floor()
    kept_wide = (sizes[:, 1] * (full[:, 0] / sizes[:, 0]) + 5e-8).floor()
    flat = ratio > full_ratio
    top = torch.where(flat, ((full[:, 0] - kept_high) / 2).floor(), 0.0)
    left = torch.where(flat, 0.0, ((full[:, 1] - kept_wide) / 2).floor())
    tokens = side * side + (full[:, 0] - 2 * top) * (full[:, 1] - 2 * left + 1)
    tiles = shape.prod(1) + 1
    return Grids(*(part.long().to(device) for part in (shape[:, 1], tiles, top, left, tokens)))


def anyres_slots(model: Any, arguments: Mapping[str, Any], image_embeds: Tensor) -> ImageSlots:
    """Give each tile to the sample that shows its image, and leave out the border.

    Args:
        model: the model without wrappers.
        arguments: forward arguments by name, with `input_ids` (B, L) and `image_sizes` (N, 2).
        image_embeds: (Q, P, D).
    """
    config, device = model.config, image_embeds.device
    side = config.vision_config.image_size // config.vision_config.patch_size
    sizes = torch.as_tensor(arguments["image_sizes"]).to(device)
    resolutions = torch.tensor(config.image_grid_pinpoints, device=device)
    grid = grids(sizes, resolutions, config.vision_config.image_size, side)
    ends = grid.tiles.cumsum(0)
    tile = torch.arange(len(image_embeds), device=device)
    image, _ = owner_of(tile, grid.tiles)
    owner, owned = owner_of(
        (grid.tokens.cumsum(0) - grid.tokens).index_select(0, image),
        (arguments["input_ids"] == image_token_of(model)).sum(1).to(device),
    )
    # where in its grid the tile lies; -1 is the overview
    number = tile - (ends - grid.tiles).index_select(0, image) - 1
    across, top, left = (part.index_select(0, image) for part in (grid.across, grid.top, grid.left))
    down = (grid.tiles - 1).index_select(0, image) // across
    patch = torch.arange(side, device=device)
    y = (number // across)[:, None] * side + patch
    x = (number % across)[:, None] * side + patch
    inside_y = (y >= top[:, None]) & (y < (down * side - top)[:, None])
    inside_x = (x >= left[:, None]) & (x < (across * side - left)[:, None])
    kept = (inside_y[:, :, None] & inside_x[:, None, :]).flatten(1) | (number < 0)[:, None]
    return ImageSlots(image_embeds, kept & owned[:, None], owner)


LLAVA_NEXT = Host(
    name="llava_next",
    projector=("model.multi_modal_projector",),
    beside_lm=("model.vision_tower", "model.image_newline"),
    images=("pixel_values",),
    image_token=image_token_of,
    slots=anyres_slots,
    model_types=("llava_next",),
)
