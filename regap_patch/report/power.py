"""How small a paired difference a run of n items can show."""

from __future__ import annotations

import math
from statistics import NormalDist

from regap_patch.errors import ReportError

LEVEL, POWER = 0.95, 0.80
DISCORDANT_SHARES = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30)


def pairs_needed(difference: float, discordant: float, *, power: float = POWER, level: float = LEVEL) -> int:
    """Pairs with which McNemar's test finds this difference (Connor 1987).

    Args:
        difference: of the two rates, above 0.
        discordant: share of items on which the arms differ; at least the difference.
        power: probability of finding it.
        level: 1 minus the size of the two-sided test.

    Raises:
        ReportError: the difference is not within 0..discordant.
    """
    if not 0 < difference <= discordant <= 1:
        raise ReportError(
            f"A difference of {difference} with {discordant} of the items discordant cannot be: give "
            f"0 < difference <= discordant <= 1."
        )
    return math.ceil(_pairs(difference, discordant, power, level))


def smallest_difference(
    n: int, discordant: float, *, power: float = POWER, level: float = LEVEL
) -> float | None:
    """The smallest difference that n pairs show with this power; None if not even the largest possible one.

    Raises:
        ReportError: n is not positive, or the share is not within 0..1.
    """
    if n <= 0 or not 0 < discordant <= 1:
        raise ReportError(
            f"{n} items with {discordant} of them discordant show nothing: give n > 0 and a share in (0, 1]."
        )
    if _pairs(discordant, discordant, power, level) > n:
        return None
    low, high = 0.0, discordant
    for _ in range(60):
        middle = (low + high) / 2
        if middle > 0 and _pairs(middle, discordant, power, level) <= n:
            high = middle
        else:
            low = middle
    return high


def _pairs(difference: float, discordant: float, power: float, level: float) -> float:
    normal = NormalDist()
    size, miss = normal.inv_cdf(0.5 + level / 2), normal.inv_cdf(power)
    spread = math.sqrt(max(0.0, discordant - difference**2))
    return ((size * math.sqrt(discordant) + miss * spread) / difference) ** 2
