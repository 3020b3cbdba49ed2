"""tr (S1 S2)^(1/2), in float64, whatever the rank.

With S2 = L L' it is the sum of the square roots of the eigenvalues of L' S1 L, a symmetric matrix. L is the
Cholesky factor where there is one; the leading eigenvectors where S2 is singular to float64; the rows
themselves where there are fewer rows than columns. Nothing is ever added to a diagonal.
Axes: D width, r rank of the factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from regap_patch.gap.moments import Moments

Route = Literal["cholesky", "spectral", "rows", "rows x rows"]

LEAF = 128
# A pivot this small against its variance is round-off of float64, not a direction of the data.
SINGULAR = 1e-12


@dataclass(frozen=True)
class Coupling:
    """What ties two covariances together.

    Attributes:
        first: index (0 or 1) of the side that was factored; the other one is inside `product`.
        factor: L, (D, r) float64; triangular where `route` is "cholesky".
        product: L' S L, (r, r) float64, symmetric, lower triangle filled; None for "rows x rows".
        cross_rows: (n1, n2) float64, A1 A2', whose singular values are wanted; only for "rows x rows".
        rank: no more eigenvalues than this differ from zero.
        pivot: least share of a coordinate's variance that the coordinates before it leave unexplained, of the
            factored side, and of both where a product was taken in float32; 1 where no Cholesky factor was
            taken, 0 for "spectral".
    """

    first: int
    factor: Tensor
    product: Tensor | None
    cross_rows: Tensor | None
    rank: int
    pivot: float
    route: Route

    def trace(self) -> Tensor:
        """The trace of (S1 S2)^(1/2): 0-d float64."""
        if self.cross_rows is not None:
            singular: Tensor = torch.linalg.svdvals(self.cross_rows)
            return singular.sum()
        assert self.product is not None
        values: Tensor = torch.linalg.eigvalsh(self.product)
        return values[-self.rank :].clamp(min=0.0).sqrt().sum()


def couple(first: Moments, second: Moments) -> Coupling:
    """Choose a factor and form the product, O(D^3)."""
    if first.factor is not None and second.factor is not None:
        cross = first.factor @ second.factor.t()
        return Coupling(1, second.factor.t(), None, cross, min(cross.shape), 1.0, "rows x rows")
    for index, (side, other) in enumerate(((first, second), (second, first))):
        if side.factor is not None:
            assert other.covariance is not None
            product = side.factor @ other.covariance @ side.factor.t()
            rank = side.count - 1
            return Coupling(index, side.factor.t(), product, None, rank, 1.0, "rows")
    assert first.covariance is not None
    assert second.covariance is not None
    width = len(first.mean)
    for index, (side, other) in ((1, (second, first)), (0, (first, second))):
        assert side.covariance is not None
        assert other.covariance is not None
        factor, pivot = _cholesky(side.covariance)
        if pivot > SINGULAR:
            if torch.float32 in (first.products, second.products):
                pivot = min(pivot, _cholesky(other.covariance.float())[1])
            return Coupling(
                index, factor, _sandwich(factor, other.covariance), None, width, pivot, "cholesky"
            )
    values, vectors = torch.linalg.eigh(second.covariance)
    kept = values > width * torch.finfo(torch.float64).eps * values[-1]
    factor = vectors[:, kept] * values[kept].sqrt()
    product = factor.t() @ first.covariance @ factor
    return Coupling(1, factor, product, None, factor.shape[1], 0.0, "spectral")


def _cholesky(covariance: Tensor) -> tuple[Tensor, float]:
    """Lower factor (D, D) and its least pivot as a share of the variance; 0 where there is no factor."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if int(failed):
        return factor, 0.0
    return factor, float((factor.diagonal().square() / covariance.diagonal()).min())


def _sandwich(lower: Tensor, covariance: Tensor) -> Tensor:
    """L' S L for lower triangular L, its lower triangle only: 4/3 D^3 operations instead of 4 D^3.

    All is laid out in columns, as LAPACK gave L and will read the product: another layout costs it a copy.
    """
    product = torch.zeros_like(covariance)
    _sandwich_halves(lower.t(), covariance, product)
    return product.t()


def _sandwich_halves(upper: Tensor, covariance: Tensor, product: Tensor) -> None:
    """Fill U S U' at and right of the diagonal, for upper triangular U = [[A, B], [0, C]], by halves.

    With S = [[P, Q], [Q', R]] the corners are C R C', (A Q + B R) C' and A P A' + E B' + B E' with
    E = A Q + B R / 2: two of them are this again, of half the size.
    """
    half = len(upper) // 2
    if len(upper) <= LEAF:
        product.copy_(upper @ covariance @ upper.t())
        return
    near, far = slice(None, half), slice(half, None)
    _sandwich_halves(upper[near, near], covariance[near, near], product[near, near])
    _sandwich_halves(upper[far, far], covariance[far, far], product[far, far])
    across = upper[near, near] @ covariance[near, far]
    beyond = upper[near, far] @ covariance[far, far]
    across += beyond
    product[near, far] = across @ upper[far, far].t()
    across.add_(beyond, alpha=-0.5)
    added = across @ upper[near, far].t()
    product[near, near] += added
    product[near, near] += added.t()
