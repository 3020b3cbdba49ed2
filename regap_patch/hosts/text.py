"""Which ids are text rows: the words that the language model learns to say.

Axes: B batch, L sequence as collated. Nothing here waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regap_patch.gap.reduction import IGNORED


def text_rows_mask(
    ids: Tensor,
    labels: Tensor,
    attention_mask: Tensor | None,
    *,
    image_id: int | None,
    end_ids: tuple[int, ...],
    plain_newline: bool = False,
) -> Tensor:
    """The supervised words of each row.

    Without BOS, EOS, image placeholders and padding, and without the newline that ends a caption in LLaVA's
    `plain` template.
    Padding is known by the mask, never by the pad id: LLaVA pads with `<unk>`, which also occurs in text.

    Args:
        ids: (B, L) int64; ids below 0 stand for images.
        labels: (B, L) int64, -100 where nothing is supervised.
        attention_mask: (B, L) bool or int, False or 0 for padding; or None.
        image_id: the id that stands for an image, if there is one.
        end_ids: ids of BOS and EOS.
        plain_newline: whether the captions may be in the `plain` template.

    Returns:
        (B, L) bool.
    """
    supervised = labels != IGNORED
    if attention_mask is not None and attention_mask.dim() == 2:
        supervised = supervised & attention_mask.to(device=labels.device, dtype=torch.bool)
    mask = supervised & (ids >= 0)
    for other in (*end_ids, *(() if image_id is None else (image_id,))):
        mask = mask & (ids != other)
    if plain_newline and image_id is not None:
        mask = mask & ~_newline_of_plain(ids, supervised, image_id)
    return mask


def _newline_of_plain(ids: Tensor, supervised: Tensor, image_id: int) -> Tensor:
    """Where the newline stands that ends a `plain` caption: (B, L) bool, at most one True in a row.

    The layer knows no tokenizer, so it goes by the shape of the row: `plain` alone supervises from the
    position right after the image on, and the newline is then the last supervised id.
    """
    position = torch.arange(ids.shape[1], device=ids.device)
    first = supervised.int().argmax(1, keepdim=True)
    before = ids.gather(1, (first - 1).clamp(min=0))
    is_plain = (first > 0) & (before == image_id)
    last = ids.shape[1] - 1 - supervised.int().flip(1).argmax(1, keepdim=True)
    return is_plain & (position == last)
