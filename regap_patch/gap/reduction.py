"""From one gap per sample to one number per batch, exactly as the language model's loss is reduced.

Then each scaling that a trainer applies to the loss (accumulation, number of ranks, loss scaling) applies to
the gap too. Axes: B batch, L sequence as collated.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED = -100


def supervised_targets(labels: Tensor) -> Tensor:
    """Targets of each sample that the language model's loss counts: (B, L) int64 -> (B,) int64.

    Position 0 predicts nothing before it and is never a target.
    """
    return (labels[:, 1:] != IGNORED).sum(1)


def reduce_like_lm(
    per_sample: Tensor, valid: Tensor, targets: Tensor, num_items: Tensor | int | None = None
) -> Tensor:
    """Sum m_b n_b R_b / N, where N is `num_items`, or sum n_b without it.

    A sample without a gap (m_b = 0) stays in the denominator, so no count has to cross ranks.

    Args:
        per_sample: R, (B,) floating.
        valid: m, (B,) bool.
        targets: n, (B,) int64.
        num_items: targets of the whole optimizer step, if the trainer gave them to the forward pass.

    Returns:
        0-d, of the dtype of `per_sample`. 0 where the batch has no target at all.
    """
    total = (per_sample * (valid * targets)).sum()
    if num_items is None:
        return total / targets.sum().clamp(min=1)
    return total / (num_items.to(total.device) if torch.is_tensor(num_items) else num_items)
