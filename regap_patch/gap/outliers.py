"""The published rule for outlying rows: beyond three deviations of the median norm, the median row stands in.

The median is torch's: the lower of the two middle values. It is taken over all rows, outliers included; rows
are replaced, not dropped (arXiv 2410.07167, released code). Nothing is replaced here: a cloud is not copied.
Axes: N rows, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regap_patch.gap.clouds import Cloud

SIGMAS = 3.0
COLUMNS = 64


def outlier_mask(norms: Tensor) -> Tensor:
    """Rows whose norm is further than 3 unbiased deviations from the lower median norm: (N,) -> (N,) bool."""
    return (norms - norms.median()).abs() > SIGMAS * norms.std()


def lower_median(cloud: Cloud) -> Tensor:
    """The coordinate-wise lower median row: (D,) float64. O(N D), a few columns at a time."""
    starts = range(0, cloud.width, COLUMNS)
    parts = [_median(cloud.columns(start, start + COLUMNS)) for start in starts]
    return torch.cat(parts).double()


def _median(columns: Tensor) -> Tensor:
    wide = columns if columns.dtype == torch.float64 else columns.float()
    return wide.median(dim=1).values


@dataclass(frozen=True)
class Replacement:
    """What stands in for which rows.

    Attributes:
        mask: (N,) bool, rows that are replaced.
        row: (D,) float64, what stands in for them; zeros where none is.
        count: how many.
    """

    mask: Tensor
    row: Tensor
    count: int

    def choose(self, lengths: Sequence[int], samples: Sequence[int]) -> Replacement:
        """The same for the rows of these samples alone; `lengths` are the rows of each sample."""
        parts = torch.split_with_sizes(self.mask, list(lengths))
        mask = torch.cat([parts[sample] for sample in samples])
        return Replacement(mask, self.row, int(mask.sum()))


def find_replacement(cloud: Cloud, norms: Tensor) -> Replacement:
    """Apply the rule to a cloud with row norms (N,). The median is taken only where a row needs it."""
    mask = outlier_mask(norms)
    count = int(mask.sum())
    row = lower_median(cloud) if count else torch.zeros(cloud.width, dtype=torch.float64, device=mask.device)
    return Replacement(mask, row, count)
