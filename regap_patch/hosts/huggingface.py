"""The models of Hugging Face transformers whose images are placeholders in `input_ids`.

Facts about attributes and configs only: transformers itself is not imported. Axes: B batch, L sequence as
collated, N images of the batch, P image tokens of one image, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from regap_patch.errors import PatchStateError
from regap_patch.hosts.host import Host, ImageSlots


def image_token_of(model: Any) -> int | None:
    """`image_token_index` of the config; None where there is none."""
    found: int | None = getattr(model.config, "image_token_index", None)
    return found


def owner_of(position: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Whose are the things at these positions, when sample b owns the next `counts[b]` of them?

    Args:
        position: (N,) int64.
        counts: (B,) int64.

    Returns:
        (N,) int64 owners, and (N,) bool, False past the last one's end (the owner then means nothing).
    """
    owner = torch.searchsorted(counts.cumsum(0), position, right=True)
    return owner.clamp(max=len(counts) - 1), owner < len(counts)


def one_image_each(image_embeds: Tensor) -> ImageSlots:
    """Image s belongs to sample s: (B, P, D)."""
    real = torch.ones(len(image_embeds), dtype=torch.bool, device=image_embeds.device)
    return ImageSlots(image_embeds, real, None)


def placeholder_slots(model: Any, arguments: Mapping[str, Any], image_embeds: Tensor) -> ImageSlots:
    """Give each image to the sample that holds its placeholders; image rows are the projector's outputs.

    Images stand in the order of their placeholders, and each has as many as the next: one on transformers
    4.37, which makes room inside the model, P where the processor has made room (5.x). How many is the number
    of placeholders divided by that of images, worked out on the device. Without a placeholder in the config,
    image s belongs to sample s.

    Args:
        model: the model without wrappers.
        arguments: forward arguments by name, with `input_ids` (B, L).
        image_embeds: (N, P, D).

    Raises:
        PatchStateError: for towers that run all images, of several sizes, as one.
    """
    if arguments.get("image_sizes") is not None:
        raise PatchStateError(
            "This model got image_sizes, so its tower (Pixtral's) runs images of several sizes as one, and "
            "the projector's output does not say where one image ends: use a tower with one image size."
        )
    image_id = image_token_of(model)
    if image_id is None:
        return one_image_each(image_embeds)
    images, device = len(image_embeds), image_embeds.device
    shown = (arguments["input_ids"] == image_id).sum(1).to(device)
    first = torch.arange(images, device=device) * (shown.sum() // max(images, 1))
    owner, owned = owner_of(first, shown)
    return ImageSlots(image_embeds, owned, owner)


def blip_image_token(model: Any) -> int | None:
    """None on transformers 4.37, which puts the image before the text whatever the config says."""
    return image_token_of(model) if hasattr(model, "get_placeholder_mask") else None


def blip_slots(model: Any, arguments: Mapping[str, Any], image_embeds: Tensor) -> ImageSlots:
    """As `placeholder_slots`; on transformers 4.37 image s belongs to sample s."""
    by_order = blip_image_token(model) is None
    return one_image_each(image_embeds) if by_order else placeholder_slots(model, arguments, image_embeds)


HF_LLAVA = Host(
    name="hf_llava",
    projector=("model.multi_modal_projector", "multi_modal_projector"),  # 5.x, 4.37
    beside_lm=("model.vision_tower", "vision_tower"),
    images=("pixel_values",),
    image_token=image_token_of,
    slots=placeholder_slots,
    model_types=("llava",),
)

_BLIP: dict[str, Any] = {
    "projector": ("language_projection",),
    "beside_lm": ("vision_model", "qformer", "query_tokens"),
    "images": ("pixel_values",),
    "image_token": blip_image_token,
    "slots": blip_slots,
    "text_only": False,
}
# The shape of MiniGPT-4 too: a Q-Former and one linear layer.
BLIP_2 = Host(name="blip_2", model_types=("blip-2",), **_BLIP)
INSTRUCT_BLIP = Host(name="instruct_blip", model_types=("instructblip",), **_BLIP)
