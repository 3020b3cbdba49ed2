"""LLaVA v1.5: this repository's `llava`, and upstream's `llava-torch` 1.2.2 on transformers 4.37.2.

Axes: B batch, L sequence as collated, P image tokens of a tile, D width of the language model.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from regap_patch.errors import PatchStateError
from regap_patch.hosts.host import Host, ImageSlots
from regap_patch.hosts.tiles import grids, kept_patches

IMAGE_TOKEN = -200  # a constant of LLaVA, in no config


def tiles_of(images: Any) -> list[int]:
    """Projector inputs of each image in the batch, known from shapes alone.

    A 4-D tensor holds one tile an image; a 5-D tensor and the 4-D entries of a list hold several; None is the
    slot of a text-only row that needs no dummy.
    """
    if torch.is_tensor(images):
        return [images.shape[1] if images.dim() == 5 else 1] * images.shape[0]
    return [0 if image is None else image.shape[0] if image.dim() == 4 else 1 for image in images]


def llava_slots(model: Any, arguments: Mapping[str, Any], image_embeds: Tensor) -> ImageSlots:
    """Give each image to the row that shows it, in the order in which LLaVA does.

    A row takes as many images from the list as it has placeholders; a row without any takes one, its dummy,
    which is not an image of it. Surplus images belong to nobody.

    Args:
        model: the model without wrappers.
        arguments: forward arguments by name, with `input_ids` (B, L), `images` and, for tiles, `image_sizes`.
        image_embeds: (tiles, P, D).

    Raises:
        PatchStateError: if the projector ran on another number of tiles than the batch holds.
    """
    ids = arguments["input_ids"]
    tiles = tiles_of(arguments["images"])
    if sum(tiles) != image_embeds.shape[0]:
        raise PatchStateError(
            f"The batch holds {sum(tiles)} image tiles, but the projector's output has "
            f"{image_embeds.shape[0]}: the hook sits on a module that is not called once with all of them."
        )
    shown = (ids == IMAGE_TOKEN).sum(1)
    kept = patches_in_sight(model, arguments, tiles, image_embeds)
    if kept is None and len(tiles) == ids.shape[0] and min(tiles) == max(tiles):
        # each row takes at least one image, so each takes exactly one
        rows = image_embeds.reshape(ids.shape[0], -1, image_embeds.shape[-1])
        return ImageSlots(rows, shown > 0, None)
    image_of_tile = torch.tensor(
        [index for index, count in enumerate(tiles) for _ in range(count)], device=image_embeds.device
    )
    shown = shown.to(image_embeds.device)
    owner = torch.searchsorted(shown.clamp(min=1).cumsum(0), image_of_tile, right=True)
    owned = owner < ids.shape[0]
    owner = owner.clamp(max=ids.shape[0] - 1)
    real = owned & (shown.gather(0, owner) > 0)
    return ImageSlots(image_embeds, real if kept is None else kept & real[:, None], owner)


def patches_in_sight(
    model: Any, arguments: Mapping[str, Any], tiles: list[int], image_embeds: Tensor
) -> Tensor | None:
    """Which patches reach the language model: (tiles, P) bool; None where all do.

    `spatial_unpad` cuts away the border by which a picture was padded to its grid of tiles. The learned
    newline after each row of the grid is no projector output, and does not count.

    Args:
        model: with `mm_patch_merge_type` and `image_grid_pinpoints` in its config.
        arguments: forward arguments by name, with `image_sizes`, (width, height) of each image.
        tiles: of each image; the first shows all of it.
        image_embeds: (tiles, P, D).
    """
    config, sizes = model.config, arguments.get("image_sizes")
    merge = getattr(config, "mm_patch_merge_type", None) or "flat"
    if "unpad" not in merge or sizes is None or max(tiles, default=0) < 2:
        return None
    device, side = image_embeds.device, isqrt(image_embeds.shape[1])
    pinpoints = config.image_grid_pinpoints
    pinpoints = literal_eval(pinpoints) if isinstance(pinpoints, str) else pinpoints
    # an image of one tile is all overview, whatever its size
    pictures = [size if count > 1 else (1, 1) for size, count in zip(sizes, tiles, strict=True)]
    grid = grids(
        torch.tensor([[int(high), int(wide)] for wide, high in pictures], device=device),
        torch.tensor([[high, wide] for wide, high in pinpoints], device=device),
        int(model.get_vision_tower().config.image_size),
        side,
    )
    places = [(image, number - 1) for image, count in enumerate(tiles) for number in range(count)]
    image, number = torch.tensor(places, device=device).unbind(1)
    return kept_patches(grid, image, number, side)


def llava_image_token(model: Any) -> int:
    """The placeholder id of LLaVA, whatever the model."""
    return IMAGE_TOKEN


LLAVA = Host(
    name="llava",
    projector=("model.mm_projector", "transformer.mm_projector"),
    beside_lm=(
        "model.vision_tower",
        "model.image_newline",
        "transformer.vision_tower",
        "transformer.image_newline",
    ),
    images=("images",),
    image_token=llava_image_token,
    slots=llava_slots,
    plain_newline=True,
)
