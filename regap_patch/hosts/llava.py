"""LLaVA v1.5: this repository's `llava`, and upstream's `llava-torch` 1.2.2 on transformers 4.37.2.

Axes: B batch, L sequence as collated, P image tokens of a tile, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from regap_patch.errors import PatchStateError
from regap_patch.hosts.host import Host, ImageSlots

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
        model: not looked at.
        arguments: forward arguments by name, with `input_ids` (B, L) and `images`.
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
    if len(tiles) == ids.shape[0] and min(tiles) == max(tiles):
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
    return ImageSlots(image_embeds, owned & (shown.gather(0, owner) > 0), owner)


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
