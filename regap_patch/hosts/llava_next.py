"""LLaVA-NeXT of transformers: an image is a small overview and the tiles of a grid that fits its shape.

What counts as an image row: a projector output that reaches the language model. That is every patch of the
overview, and those patches of the grid that are not the border by which the image was padded to the grid. The
learned newline after each row of the grid is a parameter of its own, no projector output, and does not count.

Axes: B batch, L sequence as collated, N images of the batch, Q tiles of all images, P patches of a tile, D
width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from regap_patch.hosts.host import Host, ImageSlots
from regap_patch.hosts.huggingface import image_token_of, owner_of
from regap_patch.hosts.tiles import grids, kept_patches

SLACK = 5e-8  # transformers rounds: a length that is whole but for its last digit is whole


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
    grid = grids(sizes, resolutions, config.vision_config.image_size, side, slack=SLACK)
    ends = grid.tiles.cumsum(0)
    tile = torch.arange(len(image_embeds), device=device)
    image, _ = owner_of(tile, grid.tiles)
    owner, owned = owner_of(
        (grid.tokens.cumsum(0) - grid.tokens).index_select(0, image),
        (arguments["input_ids"] == image_token_of(model)).sum(1).to(device),
    )
    number = tile - (ends - grid.tiles).index_select(0, image) - 1
    kept = kept_patches(grid, image, number, side)
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
