"""Two arms that were asked the same things: the 2x2 table of pairs and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from regap_patch.errors import ReportError
from regap_patch.report.proportions import LEVEL, Interval, wilson

Name = TypeVar("Name")


@dataclass(frozen=True, slots=True)
class PairedTable:
    """How many items had the event in which arm.

    Attributes:
        both: in the reference and in the other arm.
        reference_only: in the reference alone.
        other_only: in the other arm alone.
        neither: in none.
    """

    both: int
    reference_only: int
    other_only: int
    neither: int

    @classmethod
    def of(cls, pairs: Iterable[tuple[bool, bool]]) -> PairedTable:
        """Count (in the reference, in the other arm)."""
        counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
        for pair in pairs:
            counts[pair] += 1
        return cls(*counts.values())

    @property
    def n(self) -> int:
        """Pairs."""
        return self.both + self.reference_only + self.other_only + self.neither

    @property
    def difference(self) -> float:
        """Rate of the other arm minus rate of the reference."""
        return (self.other_only - self.reference_only) / self.n

    @property
    def discordant(self) -> float:
        """Share of pairs in which the arms differ: all that a paired test goes by."""
        return (self.other_only + self.reference_only) / self.n


def mcnemar(table: PairedTable) -> tuple[float, float]:
    """Exact conditional McNemar test, two-sided: (p, mid-p).

    The mid-p counts the observed table half (Fagerland, Lydersen and Laake 2013); its size stays near the
    nominal level, which the exact p falls far below.
    """
    try:
        from scipy.special import bdtr  # not scipy.stats, which takes seconds to import
    except ImportError as error:
        raise ReportError(
            f"The exact McNemar test needs scipy, but importing it failed ({error}): pip install scipy."
        ) from error
    one, other = table.reference_only, table.other_only
    fewer, trials = min(one, other), one + other
    if trials == 0:
        return 1.0, 1.0
    tail = float(bdtr(fewer, trials, 0.5))
    observed = tail - (float(bdtr(fewer - 1, trials, 0.5)) if fewer else 0.0)
    if one == other:
        return 1.0, 1.0 - observed / 2
    return 2 * tail, 2 * tail - observed


def newcombe(table: PairedTable, level: float = LEVEL) -> Interval:
    """Interval of `table.difference`: Newcombe's (1998, paired data) method 10.

    The Wilson limits of both margins, squared and added with the correlation of the arms, whose numerator is
    pulled towards zero by n/2 where it is positive.

    Raises:
        ReportError: the table is empty.
    """
    if table.n == 0:
        raise ReportError(
            "There is no pair of scored items, so no difference has an interval: judge both arms."
        )
    n = table.n
    first, second = table.both + table.reference_only, table.both + table.other_only
    low_1, high_1 = wilson(first, n, level)
    low_2, high_2 = wilson(second, n, level)
    rate_1, rate_2 = first / n, second / n
    phi = _correlation(table)
    difference = rate_2 - rate_1
    below = _square_and_add(rate_2 - low_2, high_1 - rate_1, phi)
    above = _square_and_add(high_2 - rate_2, rate_1 - low_1, phi)
    return Interval(difference - below, difference + above)


def _correlation(table: PairedTable) -> float:
    first, second = table.both + table.reference_only, table.both + table.other_only
    margins = first * (table.n - first) * second * (table.n - second)
    if margins == 0:
        return 0.0
    product = float(table.both * table.neither - table.reference_only * table.other_only)
    if product > 0:
        product = max(product - table.n / 2, 0.0)
    return product / math.sqrt(margins)


def _square_and_add(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Holm's (1979) step-down adjusted p-values of one family, under the names given."""
    adjusted: dict[Name, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def is_non_inferior(interval: Interval, margin: float) -> bool:
    """Whether a difference (other minus reference, more is better) surely lies above -margin.

    "Kept" is this, and never that a test found no difference.

    Raises:
        ReportError: the margin is not positive.
    """
    if margin <= 0:
        raise ReportError(f"A margin of {margin} leaves nothing to be non-inferior by: give one like 0.01.")
    return interval.low > -margin
