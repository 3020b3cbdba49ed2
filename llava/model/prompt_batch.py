"""Prompts of different lengths as one batch: padded on the left, all end where generation begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PADDING_ID = 0
"""Any valid id: padding is known by the mask."""


def pad_left(
    prompts: Tensor | Sequence[Tensor], attention_mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Ids (B, L) and mask (B, L) bool with the padding on the left.

    Args:
        prompts: (B, L) int64, or B ragged (L,).
        attention_mask: (B, L), nonzero at real ids, which need not be contiguous; None with a tensor means
            that all ids are real, and then no mask is returned.
    """
    if isinstance(prompts, Tensor):
        if attention_mask is None:
            return prompts, None
        prompts = [row[keep.to(row.device).bool()] for row, keep in zip(prompts, attention_mask, strict=True)]
    longest = max(len(row) for row in prompts)
    ids = prompts[0].new_full((len(prompts), longest), PADDING_ID)
    mask = torch.zeros(len(prompts), longest, dtype=torch.bool, device=ids.device)
    for row, prompt in enumerate(prompts):
        if len(prompt):
            ids[row, -len(prompt) :] = prompt
            mask[row, -len(prompt) :] = True
    return ids, mask
