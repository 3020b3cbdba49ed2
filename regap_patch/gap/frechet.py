"""The Frechet distance of two clouds: |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), unbiased covariances.

Products are taken in float32 and added in float64. Where that does not resolve the answer (a nearly singular
covariance, or two clouds so alike that the terms cancel) they are taken again in float64.
Axes: N, M rows, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regap_patch.errors import RowsError
from regap_patch.gap.clouds import Cloud, Rows
from regap_patch.gap.coupling import Coupling, couple
from regap_patch.gap.moments import Moments, moments_of
from regap_patch.gap.outliers import Replacement

# Float32 sums are off by about 1e-7 of the variance: a pivot below this, or a distance below this share of
# the traces, needs float64.
RESOLVED_PIVOT = 1e-4
RESOLVED_SHARE = 0.1
# A variance below this share of the mean square is round-off of float32 rows.
CONSTANT = 1e-14


@dataclass(frozen=True)
class FrechetParts:
    """The distance in parts, each 0-d float64 of the rows' squared unit.

    Attributes:
        mean: |m1 - m2|^2.
        first_trace: tr S1.
        second_trace: tr S2.
        cross: tr (S1 S2)^(1/2).
        coupling: what `cross` came from.
        products: dtype of the products behind the covariances.
    """

    mean: Tensor
    first_trace: Tensor
    second_trace: Tensor
    cross: Tensor
    coupling: Coupling
    products: torch.dtype

    @property
    def spread(self) -> Tensor:
        """The spread part, tr S1 + tr S2 - 2 tr (S1 S2)^(1/2); round-off may leave it a little below zero."""
        return self.first_trace + self.second_trace - 2.0 * self.cross

    @property
    def distance(self) -> Tensor:
        """The Frechet distance, never below zero."""
        return self.mean + self.spread.clamp(min=0.0)

    @property
    def resolved(self) -> bool:
        """Whether the dtype of the products is enough for 1e-6."""
        if self.products == torch.float64:
            return True
        alike = self.distance < RESOLVED_SHARE * (self.first_trace + self.second_trace)
        return self.coupling.pivot > RESOLVED_PIVOT and not bool(alike)


def parts_of_moments(first: Moments, second: Moments) -> FrechetParts:
    """The distance of two clouds of which mean and covariance are known. O(D^3)."""
    coupling = couple(first, second)
    exact = torch.float64 if first.products == second.products == torch.float64 else torch.float32
    return FrechetParts(
        mean=(first.mean - second.mean).square().sum(),
        first_trace=first.trace,
        second_trace=second.trace,
        cross=coupling.trace(),
        coupling=coupling,
        products=exact,
    )


def parts_of_clouds(
    first: Cloud,
    second: Cloud,
    replacements: tuple[Replacement | None, Replacement | None] = (None, None),
) -> tuple[FrechetParts, tuple[Moments, Moments]]:
    """The distance of two clouds and their moments, in float64 products where float32 is not enough.

    Raises:
        RowsError: for clouds of different widths, and for one whose rows are all the same.
    """
    if first.width != second.width:
        raise RowsError(
            f"A distance needs rows of one width, but the {first.name} are {first.width} wide and the "
            f"{second.name} {second.width}."
        )
    few = min(first.count, second.count) <= first.width
    wide = torch.float64 in (first.working_dtype, second.working_dtype)
    for products in (torch.float64,) if few or wide else (torch.float32, torch.float64):
        moments = (
            moments_of(first, replacements[0], products),
            moments_of(second, replacements[1], products),
        )
        if products == torch.float32 and not all(map(has_spread, moments)):
            continue  # their squares may only be beyond its range
        for cloud, moment in zip((first, second), moments, strict=True):
            check_spread(moment, cloud.name)
        parts = parts_of_moments(*moments)
        if parts.resolved:
            break
    return parts, moments


def has_spread(moments: Moments) -> bool:
    """Whether the covariance is finite and more than the round-off of rows that are all the same."""
    trace = moments.trace
    return bool(trace.isfinite() and trace > CONSTANT * moments.mean.square().sum())


def check_spread(moments: Moments, name: str) -> None:
    """Refuse a cloud without any spread.

    Raises:
        RowsError: where the covariance is zero.
    """
    if not has_spread(moments):
        raise RowsError(
            f"The {name} are all the same ({moments.count} rows, zero covariance): a distance between "
            "distributions needs rows that differ."
        )


@torch.no_grad()
def frechet_distance(x: Rows, y: Rows) -> Tensor:
    """Frechet distance of the Gaussians that two clouds have the moments of.

    Args:
        x: (N, D) floating, or a sequence of (n_i, D).
        y: (M, D) floating, or a sequence of (m_i, D).

    Returns:
        0-d float64, in the rows' squared unit, at least 0. Nothing is scaled and no outlier replaced.
        Cost: (N + M) D^2 + O(D^3), less where N or M <= D.

    Raises:
        RowsError: fewer than two rows, rows of different widths, NaN or infinity, or no spread at all.
    """
    first, second = Cloud.of(x, "rows of x"), Cloud.of(y, "rows of y")
    first.row_norms()
    second.row_norms()
    return parts_of_clouds(first, second)[0].distance
