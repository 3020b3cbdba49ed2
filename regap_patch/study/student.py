"""Student's t for a handful of units: the interval of a mean, and how small a mean n units can show.

Everything goes back to the regularised incomplete beta function, so that an analysis needs no scipy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from regap_patch.errors import StudyError
from regap_patch.report.proportions import LEVEL

POWER = 0.80
MOST_UNITS = 10_000  # beyond which nobody trains language models
_TERMS = 100_000
_EXACT = 4e-16


@dataclass(frozen=True, slots=True)
class MeanOf:
    """The mean of one value per unit.

    Attributes:
        n: units.
        mean: of the values.
        sd: their standard deviation; None of a single unit, and so are the others.
        stderr: of the mean.
        low: lower end of the two-sided t interval.
        high: its upper end.
        p: two-sided, of the hypothesis that the mean is zero.
    """

    n: int
    mean: float
    sd: float | None
    stderr: float | None
    low: float | None
    high: float | None
    p: float | None


def mean_of(values: Sequence[float], level: float = LEVEL) -> MeanOf:
    """Mean with its two-sided t interval.

    Raises:
        StudyError: no value, or one that is not finite.
    """
    n = len(values)
    if not n or not all(map(math.isfinite, values)):
        raise StudyError(
            f"A mean of {n} values was asked for, of which {sum(map(math.isfinite, values))} are finite "
            f"numbers: give at least one, and no other."
        )
    mean = math.fsum(values) / n
    if n == 1:
        return MeanOf(1, mean, None, None, None, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    stderr = sd / math.sqrt(n)
    reach = t_quantile(0.5 + level / 2, n - 1) * stderr
    p = 2 * t_tail(abs(mean) / stderr, n - 1) if stderr else float(mean == 0)
    return MeanOf(n, mean, sd, stderr, mean - reach, mean + reach, p)


def power_of(n: int, sd: float, effect: float, level: float = LEVEL) -> float:
    """Probability that a two-sided one-sample t test of n units finds a mean of this size.

    Args:
        n: units, at least 2.
        sd: of one unit's value.
        effect: the true mean; its sign does not matter.
        level: 1 minus the size of the test.

    Raises:
        StudyError: fewer than two units, or a negative standard deviation.
    """
    if n < 2 or not sd >= 0:
        raise StudyError(f"The power of {n} units of deviation {sd} is no question: give n > 1 and sd >= 0.")
    if sd == 0:
        return 1.0 if effect else 1 - level
    edge = t_quantile(0.5 + level / 2, n - 1)
    shift = abs(effect) / sd * math.sqrt(n)
    return 1.0 - noncentral_t_cdf(edge, n - 1, shift) + noncentral_t_cdf(-edge, n - 1, shift)


def units_needed(sd: float, effect: float, *, power: float = POWER, level: float = LEVEL) -> int:
    """The smallest number of units that find a mean of this size with this power.

    Raises:
        StudyError: no effect, a power that is no probability, or more than `MOST_UNITS`.
    """
    if not effect or not 0 < power < 1:
        raise StudyError(
            f"Units for an effect of {effect} with power {power} were asked for: give an effect other than 0 "
            f"and a power between 0 and 1."
        )
    few, enough = 1, 2
    while power_of(enough, sd, effect, level) < power:
        few, enough = enough, enough * 2
        if few > MOST_UNITS:
            raise StudyError(
                f"An effect of {effect} beside a deviation of {sd} needs more than {MOST_UNITS} units: look "
                f"for a larger effect, or measure each unit better."
            )
    while enough - few > 1:
        middle = (few + enough) // 2
        if power_of(middle, sd, effect, level) < power:
            few = middle
        else:
            enough = middle
    return enough


def smallest_mean(n: int, sd: float, *, power: float = POWER, level: float = LEVEL) -> float:
    """The smallest mean that n units find with this power."""
    if sd == 0:
        return 0.0
    low, high = 0.0, sd
    while power_of(n, sd, high, level) < power:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if power_of(n, sd, middle, level) < power else (low, middle)
    return high


def t_tail(t: float, df: float) -> float:
    """P(T > t) of Student's t."""
    half = 0.5 * incomplete_beta(df / 2, 0.5, df / (df + t * t), t * t / (df + t * t))
    return half if t >= 0 else 1.0 - half


@lru_cache(maxsize=4096)
def t_quantile(share: float, df: float) -> float:
    """The t below which this share of Student's t lies: 2.262157 for 0.975 and 9 degrees of freedom.

    Raises:
        StudyError: the share is not between 0 and 1, or there is no degree of freedom.
    """
    if not 0 < share < 1 or not df > 0:
        raise StudyError(
            f"The t quantile of {share} with {df} degrees of freedom was asked for: give a share between 0 "
            f"and 1, and more than one unit."
        )
    if share < 0.5:
        return -t_quantile(1 - share, df)
    low, high = 0.0, 1.0
    while t_tail(high, df) > 1 - share:
        low, high = high, high * 2
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return middle
        low, high = (middle, high) if t_tail(middle, df) > 1 - share else (low, middle)


def noncentral_t_cdf(t: float, df: float, shift: float) -> float:
    """P(T <= t) of the noncentral t: a normal of mean `shift` over the root of chi square / df.

    The series of Lenth (1989) in incomplete betas, summed where its Poisson weights are.
    """
    if t < 0:
        return 1.0 - noncentral_t_cdf(-t, df, -shift)
    below, half = 0.5 * math.erfc(shift / math.sqrt(2)), shift * shift / 2
    if half == 0 or t == 0:
        return 1.0 - t_tail(t, df) if half == 0 else below
    if not -40 < shift < 100 * t + 40:  # no normal gets that far, and no root of chi square / df beyond 100
        return float(shift < 0)
    x, rest = t * t / (df + t * t), df / (df + t * t)
    reach = 12 * math.sqrt(half) + 60
    total = 0.0
    for j in range(max(0, int(half - reach)), int(half + reach) + 1):
        even = math.exp(j * math.log(half) - half - math.lgamma(j + 1))
        odd = math.exp(j * math.log(half) - half - math.lgamma(j + 1.5)) * shift / math.sqrt(2)
        if even + abs(odd) > _EXACT / 100:
            total += even * incomplete_beta(j + 0.5, df / 2, x, rest)
            total += odd * incomplete_beta(j + 1, df / 2, x, rest)
    return min(1.0, max(0.0, below + total / 2))


def incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """I_x(a, b), regularised; `rest` is 1 - x, given apart because it may be tiny.

    The continued fraction of DLMF 8.17.22, on the side where it converges fast.
    """
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - incomplete_beta(b, a, rest, x)
    front = a * math.log(x) + b * math.log(rest) - math.lgamma(a) - math.lgamma(b) + math.lgamma(a + b)
    return math.exp(front) / a / _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d1 / (1 + d2 / (1 + ...)), from the front (Lentz)."""
    value = upper = 1.0
    lower = 0.0
    for k in range(1, _TERMS):
        m = k // 2
        if k % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1.0 / (1.0 + d * lower or 1e-300)
        upper = 1.0 + d / upper or 1e-300
        step = upper * lower
        value *= step
        if abs(step - 1.0) < _EXACT:
            return value
    return value
