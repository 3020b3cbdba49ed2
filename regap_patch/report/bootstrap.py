"""Cluster bootstrap: whole clusters are drawn, because items within one are not independent.

A rate depends on a cluster by its numerator and denominator alone, and few such pairs occur. So it is drawn
how often each *kind* of cluster comes up (multinomial), which is the same distribution as drawing clusters
one by one, at the cost of kinds instead of clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from regap_patch.errors import ReportError
from regap_patch.report.proportions import LEVEL, Interval, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 10_000
_SAME = 1e-12  # rates of two clusters that differ by rounding alone
_DRAWN_AT_ONCE = 4_000_000  # counts, 8 bytes each

Clusters = Sequence[tuple[float, float]]  # (sum of values, number of items) of each cluster


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """What resampling says about a rate.

    Attributes:
        percentile: quantiles of the resampled rates; where those do not vary, see `bootstrap`.
        bca: corrected for bias and acceleration (Efron 1987); None where the resamples do not vary, or where
            the rate is a mean over several strata.
        stderr: standard deviation of the resampled rates.
        clusters: number of clusters.
        resamples: number of resamples.
    """

    percentile: Interval
    bca: Interval | None
    stderr: float
    clusters: int
    resamples: int


def bootstrap(
    strata: Sequence[Clusters],
    *,
    within: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Bootstrapped:
    """Interval of the mean over strata of (sum of values / number of items).

    Where all clusters of each stratum say the same, so do all resamples, and their quantiles would claim
    certainty. Then Wilson's interval of "none of so many clusters says otherwise" bounds the share of
    clusters that may, and those may say anything within `within`.

    Args:
        strata: one for a plain (micro) rate, one a scenario for a macro rate; drawn within each.
        within: the least and the largest value that an item can have.
        seed: of the draws.
        resamples: how many.
        level: of the intervals.

    Raises:
        ReportError: a stratum without an item.
    """
    import numpy as np

    if not strata or any(not sum(items for _, items in stratum) for stratum in strata):
        raise ReportError("A bootstrap over no items was asked for: score a run that has some.")
    generator = np.random.default_rng(seed)
    drawn = np.mean([_resampled(_kinds(stratum), generator, resamples) for stratum in strata], axis=0)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    varied, bca = any(map(_varies, strata)), None
    if not varied:
        low, high = np.mean([_unvaried(stratum, within, level) for stratum in strata], axis=0)
    if len(strata) == 1 and varied:
        values, items = np.asarray(strata[0], dtype=float).T
        leave_one_out = _leave_one_out(values, items)
        if leave_one_out is not None:
            bca = bca_interval(drawn, values.sum() / items.sum(), leave_one_out, level)
    return Bootstrapped(
        Interval(float(low), float(high)),
        bca,
        float(drawn.std(ddof=1)),
        sum(len(stratum) for stratum in strata),
        resamples,
    )


def _varies(clusters: Clusters) -> bool:
    rates = [value / items for value, items in clusters if items]
    return max(rates) - min(rates) > _SAME


def _unvaried(clusters: Clusters, within: tuple[float, float], level: float) -> Interval:
    rate = sum(value for value, _ in clusters) / sum(items for _, items in clusters)
    others = wilson(0, len(clusters), level).high
    return Interval(*((1 - others) * rate + others * end for end in within))


def bca_interval(drawn: Floats, value: float, leave_one_out: Floats, level: float = LEVEL) -> Interval | None:
    """The BCa interval of a statistic.

    Args:
        drawn: (R,) its resampled values.
        value: its value.
        leave_one_out: (C,) its values without each of the clusters.
        level: of the interval.

    Returns:
        None where the resamples or the leave-one-out values do not vary.
    """
    import numpy as np

    below = (np.count_nonzero(drawn < value) + np.count_nonzero(drawn <= value)) / (2 * len(drawn))
    pulls = leave_one_out.mean() - leave_one_out
    spread = float((pulls**2).sum())
    if not 0.0 < below < 1.0 or spread == 0.0:
        return None
    acceleration = float((pulls**3).sum()) / (6 * spread**1.5)
    normal = NormalDist()
    bias = normal.inv_cdf(float(below))
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + normal.inv_cdf(tail)
        ends.append(normal.cdf(bias + shifted / (1 - acceleration * shifted)))
    low, high = np.quantile(drawn, ends)
    return Interval(float(low), float(high))


def _kinds(clusters: Clusters) -> tuple[Floats, Floats, Any]:
    import numpy as np

    kinds, counts = np.unique(np.asarray(clusters, dtype=float), axis=0, return_counts=True)
    return kinds[:, 0], kinds[:, 1], counts


def _resampled(kinds: tuple[Floats, Floats, Any], generator: np.random.Generator, resamples: int) -> Floats:
    import numpy as np

    values, items, counts = kinds
    total = int(counts.sum())
    rows = max(1, _DRAWN_AT_ONCE // len(counts))
    parts = []
    for start in range(0, resamples, rows):
        drawn = generator.multinomial(total, counts / total, size=min(rows, resamples - start))
        parts.append((drawn @ values) / (drawn @ items))
    return np.concatenate(parts)


def _leave_one_out(values: Floats, items: Floats) -> Floats | None:
    rest = items.sum() - items
    if not (rest > 0).all():
        return None
    without: Floats = (values.sum() - values) / rest
    return without


def sign_flip(differences: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Two-sided p of "no difference", by flipping the sign of whole clusters.

    With clusters of one item and two outcomes this is the exact McNemar test, up to the draws.

    Args:
        differences: of each cluster the sum of (other - reference).
        seed: of the draws.
        resamples: how many.
    """
    import numpy as np

    sizes, counts = np.unique(np.abs([part for part in differences if part]), return_counts=True)
    if not sizes.size:
        return 1.0
    generator = np.random.default_rng(seed)
    flipped = (2 * generator.binomial(counts, 0.5, size=(resamples, len(counts))) - counts) @ sizes
    as_far = np.count_nonzero(np.abs(flipped) >= abs(sum(differences)) - 1e-9)
    return (1 + int(as_far)) / (resamples + 1)
