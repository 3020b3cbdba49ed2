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
    image_id: int,
    end_ids: tuple[int, ...],
) -> Tensor:
    """The supervised words of each row.

    Without BOS, EOS, image placeholders, padding and the newline that ends a caption in LLaVA's `plain`.
    Padding is known by the mask, never by the pad id: LLaVA pads with `<unk>`, which also occurs in text.

    Args:
        ids: (B, L) int64; ids below 0 stand for images.
        labels: (B, L) int64, -100 where nothing is supervised.
        attention_mask: (B, L) bool or int, False or 0 for padding; or None.
        image_id: the id that stands for an image.
        end_ids: ids of BOS and EOS.

    Returns:
        (B, L) bool.
    """
    supervised = labels != IGNORED
    if attention_mask is not None and attention_mask.dim() == 2:
        supervised = supervised & attention_mask.to(device=labels.device, dtype=torch.bool)
    mask = supervised & (ids >= 0) & (ids != image_id) & ~_newline_of_plain(ids, supervised, image_id)
    for end in end_ids:
        mask = mask & (ids != end)
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
