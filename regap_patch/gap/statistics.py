"""What the gap looks like: distance of the means, spread, norms and direction, per sample.

Axes: B batch, S image slots, P rows in a slot, T text rows, D width of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from regap_patch.gap.losses import pairwise_l2
from regap_patch.gap.precision import without_autocast
from regap_patch.gap.rows import ModalityRows


@dataclass(frozen=True)
class GapStats:
    """One value per sample: (B,) float32 or float64, without graph; see `ModalityRows.valid` for which count.

    Attributes:
        centroid_l2: |mean v - mean t|, the mean-embedding gap.
        pairwise_sq: mean |v_i - t_j|^2 = centroid_l2^2 + image_trace + text_trace.
        image_norm: mean |v_i|.
        text_norm: mean |t_j|.
        image_trace: tr Cov v, population (divided by n).
        text_trace: tr Cov t, population.
        cosine: of mean v and mean t; 0 where one of them is 0.
        pairwise_l2: mean |v_i - t_j|; None unless it was asked for (it alone costs O(n m D)).
    """

    centroid_l2: Tensor
    pairwise_sq: Tensor
    image_norm: Tensor
    text_norm: Tensor
    image_trace: Tensor
    text_trace: Tensor
    cosine: Tensor
    pairwise_l2: Tensor | None = None

    def as_dict(self) -> dict[str, Tensor]:
        """Those that were taken, by name."""
        taken = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in taken if value is not None}


@torch.no_grad()
def gap_statistics(rows: ModalityRows, *, pairwise: bool = False) -> GapStats:
    """Statistics of each sample, in float32 or better, without graph.

    Args:
        rows: image rows (S, P, D) and text rows (B, T, D) with their masks.
        pairwise: also take `pairwise_l2`.

    Returns:
        (B,) tensors. A sample without rows of one kind has finite, meaningless values.
        Cost: O((n + m) D) for n image and m text rows; with `pairwise` O(n m D).
    """
    rows = rows.detach().in_full_precision()
    with without_autocast(rows.image.device):
        image_mean, text_mean = rows.image_average(rows.image), rows.text_average(rows.text)
        gap_sq = (image_mean - text_mean).square().sum(-1)
        image_trace = rows.image_average((rows.image - rows.to_slots(image_mean)[:, None]).square().sum(-1))
        text_trace = rows.text_average((rows.text - text_mean[:, None]).square().sum(-1))
        return GapStats(
            centroid_l2=gap_sq.sqrt(),
            pairwise_sq=gap_sq + image_trace + text_trace,
            image_norm=rows.image_average(rows.image.square().sum(-1).sqrt()),
            text_norm=rows.text_average(rows.text.square().sum(-1).sqrt()),
            image_trace=image_trace,
            text_trace=text_trace,
            cosine=torch.nn.functional.cosine_similarity(image_mean, text_mean, dim=-1),
            pairwise_l2=pairwise_l2(rows) if pairwise else None,
        )
