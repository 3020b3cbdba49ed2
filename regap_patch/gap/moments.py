"""Mean and covariance of a cloud from running sums: float32 products of shifted blocks, added up in float64.

A symmetric product is half redundant, so only the strips at and right of the diagonal are multiplied. The
sums take rows in any order and any number at a time, so a stream can feed them as well as a stored cloud.
Axes: N rows, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from regap_patch.gap.clouds import Cloud
from regap_patch.gap.outliers import Replacement
from regap_patch.gap.precision import exact_products, float64

STRIP = 256
# Rows of one float32 product: each costs an addition of (D, D) in float64, and more of them cost digits.
LEAST_ROWS = 256
SHIFT_ROWS = 64


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of N rows, the covariance whole or as a factor.

    Attributes:
        count: N.
        mean: (D,) float64.
        covariance: (D, D) float64, unbiased (divided by N - 1), or None.
        factor: (N, D) float64 where N <= D: A with A'A the covariance, so that D x D need not be formed; or
            None. Exactly one of the two is given.
        products: dtype that the products were taken in.
    """

    count: int
    mean: Tensor
    covariance: Tensor | None
    factor: Tensor | None
    products: torch.dtype

    @property
    def trace(self) -> Tensor:
        """Trace of the covariance: 0-d float64."""
        if self.factor is not None:
            return self.factor.square().sum()
        assert self.covariance is not None
        return self.covariance.diagonal().sum()

    def without(self, part: Moments) -> Moments:
        """Moments of the rows that are not in a part; both need a covariance, the rest two rows or more."""
        assert self.covariance is not None
        assert part.covariance is not None
        rest = self.count - part.count
        mean = (self.count * self.mean - part.count * part.mean) / rest
        between = (part.mean - mean) * sqrt(part.count / self.count * rest)
        scatter = (self.count - 1) * self.covariance - (part.count - 1) * part.covariance
        covariance = (scatter - torch.outer(between, between)) / (rest - 1)
        return Moments(rest, mean, covariance, None, self.products)


class MomentSums:
    """Sums from which `Moments` follow.

    Args:
        width: D.
        products: float32, or float64 where float32 does not resolve the covariance (twice the time).
        device: where the sums live; (D, D) float64 of memory.
    """

    def __init__(
        self,
        width: int,
        *,
        products: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        self.count = 0
        self.products = products
        self.shift: Tensor | None = None  # taken from each row first: the mean of the first rows
        self.total = torch.zeros(width, dtype=torch.float64, device=device)
        self.squares = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, rows: Tensor, keep: Tensor | None = None) -> None:
        """Add rows (n, D), of any floating dtype; with `keep` (n,) bool only those where it holds."""
        kept = len(rows) if keep is None else int(keep.sum())
        if not kept:
            return
        rows = rows.to(self.products)
        if self.shift is None:
            chosen = rows if keep is None else rows[keep]
            self.shift = chosen[:SHIFT_ROWS].mean(0, dtype=torch.float64).to(self.products)
        rows = rows - self.shift
        if keep is not None and kept < len(rows):
            rows[~keep] = 0.0
        self.count += kept
        with exact_products(rows.device):
            self.total += rows.new_ones(len(rows)) @ rows
            for start in range(0, rows.shape[1], STRIP):
                stop = start + STRIP
                self.squares[start:stop, start:] += rows[:, start:stop].t() @ rows[:, start:]

    def add_copies(self, row: Tensor, count: int) -> None:
        """Add `count` copies of one row (D,): what stands in for outlying rows."""
        if not count:
            return
        if self.shift is None:
            self.shift = row.to(self.products)
        difference = row.to(self.total) - self.shift.to(self.total)
        self.count += count
        self.total += count * difference
        self.squares.addr_(difference, difference, alpha=float(count))

    def moments(self) -> Moments:
        """Mean and unbiased covariance of what was added."""
        assert self.shift is not None
        mean = self.total / self.count
        covariance = self.squares.clone().addr_(self.total, mean, alpha=-1.0).div_(max(self.count - 1, 1))
        for start in range(0, len(mean), STRIP):
            stop = start + STRIP
            corner = covariance[start:stop, start:stop]
            corner.copy_(corner.triu() + corner.triu(1).t())
            covariance[stop:, start:stop] = covariance[start:stop, stop:].t()
        return Moments(self.count, mean + self.shift.to(mean), covariance, None, self.products)


def sums_of(cloud: Cloud, replacement: Replacement | None, products: torch.dtype) -> MomentSums:
    """The sums of a cloud with its outlying rows replaced. Extra memory: a block and (D, D) float64."""
    sums = MomentSums(cloud.width, products=products, device=cloud.device)
    size, start = max(LEAST_ROWS, cloud.width), 0
    for block in cloud.blocks(size):
        stop = start + len(block)
        sums.add(
            block, None if replacement is None or not replacement.count else ~replacement.mask[start:stop]
        )
        start = stop
    if replacement is not None:
        sums.add_copies(replacement.row, replacement.count)
    return sums


def moments_of(cloud: Cloud, replacement: Replacement | None, products: torch.dtype) -> Moments:
    """Moments of a cloud with its outlying rows replaced; as a factor in float64 where N <= D."""
    if cloud.count > cloud.width:
        return sums_of(cloud, replacement, products).moments()
    rows = float64(torch.cat(cloud.samples))
    if replacement is not None and replacement.count:
        rows = torch.where(replacement.mask[:, None], replacement.row, rows)
    mean = rows.mean(0)
    return Moments(cloud.count, mean, None, (rows - mean) / sqrt(cloud.count - 1), torch.float64)
