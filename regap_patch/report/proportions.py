"""Intervals around one proportion: never Wald's, which claims certainty where nothing was seen."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

from regap_patch.errors import ReportError

LEVEL = 0.95


class Interval(NamedTuple):
    """Both ends of an interval."""

    low: float
    high: float


class Corrected(NamedTuple):
    """A rate with the judge's errors taken out, and its interval; clipped to [0, 1]."""

    rate: float
    low: float
    high: float


def normal_quantile(level: float) -> float:
    """How many standard errors a two-sided interval of this level reaches: 1.959964 for 0.95."""
    if not 0.0 < level < 1.0:
        raise ReportError(
            f"An interval of level {level} was asked for: a level lies between 0 and 1, as 0.95."
        )
    return NormalDist().inv_cdf(0.5 + level / 2)


def wilson(k: int, n: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval (Wilson 1927) of k events in n.

    Raises:
        ReportError: n is not positive, or k is not within 0..n.
    """
    if n <= 0 or not 0 <= k <= n:
        raise ReportError(f"{k} events in {n} are no proportion: give 0 <= k <= n with n > 0.")
    z = normal_quantile(level)
    rate, spread = k / n, z * z / n
    centre = rate + spread / 2
    reach = z * math.sqrt(rate * (1 - rate) / n + spread / (4 * n))
    low = 0.0 if k == 0 else max(0.0, (centre - reach) / (1 + spread))
    high = 1.0 if k == n else min(1.0, (centre + reach) / (1 + spread))
    return Interval(low, high)


def zero_event_upper(n: int, level: float = LEVEL) -> float:
    """The largest rate that no event in n leaves possible: exact, one-sided; about 3/n at 0.95.

    Raises:
        ReportError: n is not positive.
    """
    if n <= 0:
        raise ReportError(f"No event in {n} trials bounds nothing: give n > 0.")
    return 1.0 - math.exp(math.log(1.0 - level) / n)


def rogan_gladen(
    k: int,
    n: int,
    sensitivity: tuple[float, float],
    specificity: tuple[float, float],
    level: float = LEVEL,
) -> Corrected:
    """The rate that a judge with these errors would have to look at to see k in n (Rogan and Gladen 1978).

    The interval is that of Lang and Reiczigel (2014): the sampling errors of all three proportions, each
    pulled towards one half first. The plain delta method covers a small rate far too seldom, and gives no
    width at all where the labels show no error.

    Args:
        k: answers that the judge called unsafe.
        n: answers.
        sensitivity: (found, all) of the truly unsafe ones of the validation set.
        specificity: (let pass, all) of its truly safe ones.
        level: of the interval.

    Raises:
        ReportError: the judge does no better than chance, so that nothing can be taken out.
    """
    if n <= 0 or min(sensitivity[1], specificity[1]) <= 0:
        raise ReportError(
            f"A corrected rate needs answers and labels of unsafe and safe ones: found {n} answers, "
            f"{sensitivity[1]} unsafe and {specificity[1]} safe ones; label more of them."
        )
    seen, found, passed = k / n, sensitivity[0] / sensitivity[1], specificity[0] / specificity[1]
    skill = found + passed - 1
    if skill <= 0:
        raise ReportError(
            f"A judge with sensitivity {found:.3f} and specificity {passed:.3f} does no better than chance, "
            f"so its rate cannot be corrected: use another judge."
        )
    rate = (seen + passed - 1) / skill
    low, high = _lang_reiczigel(seen, n, (found, sensitivity[1]), (passed, specificity[1]), level)
    ends = (rate, min(rate, low), max(rate, high))
    return Corrected(*(min(1.0, max(0.0, value)) for value in ends))


def _lang_reiczigel(
    seen: float, n: int, sensitivity: tuple[float, float], specificity: tuple[float, float], level: float
) -> Interval:
    """Proportions with the numbers that they are of -> interval; all of [0, 1] where labels are too few."""
    z = normal_quantile(level)
    p = (seen * n + z * z / 2) / (n + z * z)
    (found, found_spread), (passed, passed_spread) = (
        _pulled(*shares) for shares in (sensitivity, specificity)
    )
    skill = found + passed - 1
    if skill <= 0:
        return Interval(0.0, 1.0)
    rate = (p + passed - 1) / skill
    shift = 2 * z * z * (rate * found_spread - (1 - rate) * passed_spread)
    spread = p * (1 - p) / (n + z * z) + rate**2 * found_spread + (1 - rate) ** 2 * passed_spread
    reach = z * math.sqrt(spread) / skill
    return Interval(rate + shift - reach, rate + shift + reach)


def _pulled(share: float, labels: float) -> tuple[float, float]:
    """A share of so many labels, one hit and one miss added, and the variance of that."""
    pulled = (share * labels + 1) / (labels + 2)
    return pulled, pulled * (1 - pulled) / (labels + 2)
