"""Mean distance between the rows of two clouds, all pairs of rows, without holding them at once.

Axes: N, M rows, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regap_patch.errors import RowsError
from regap_patch.gap.clouds import Cloud, Rows
from regap_patch.gap.precision import exact_products

BLOCK_ROWS = 2048


@torch.no_grad()
def mean_pairwise_l2(x: Rows, y: Rows) -> Tensor:
    """Mean |x_i - y_j| over all pairs of rows.

    Args:
        x: (N, D) floating, or a sequence of (n_i, D).
        y: (M, D) floating, or a sequence of (m_i, D).

    Returns:
        0-d float64. Cost: O(N M D); memory: one block of 2048 x 2048. Its square counterpart follows from the
        moments alone, see `LayerTerm.pairwise_sq`.

    Raises:
        RowsError: fewer than two rows, rows of different widths, NaN or infinity.
    """
    first, second = Cloud.of(x, "rows of x"), Cloud.of(y, "rows of y")
    if first.width != second.width:
        raise RowsError(f"A distance needs rows of one width, but they are {first.width} and {second.width}.")
    first.row_norms()
    second.row_norms()
    dtype = torch.promote_types(first.working_dtype, second.working_dtype)
    shift = next(second.blocks(BLOCK_ROWS)).mean(0, dtype=torch.float64).to(dtype)
    total = torch.zeros((), dtype=torch.float64, device=first.device)
    with exact_products(first.device):
        for left in first.blocks(BLOCK_ROWS):
            for right in second.blocks(BLOCK_ROWS):
                distances = torch.cdist(left.to(dtype) - shift, right.to(dtype) - shift)
                total += distances.sum(dtype=torch.float64)
    return total / (first.count * second.count)
