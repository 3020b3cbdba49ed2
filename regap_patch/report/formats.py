"""Numbers as people read them: percent, signed points, intervals, p-values."""

from __future__ import annotations

from collections.abc import Sequence

NONE = "-"


def percent(rate: float | None) -> str:
    """0.3 -> "30.0 %"."""
    return NONE if rate is None else f"{100 * rate:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """0.2, 0.4 -> "20.0 to 40.0"."""
    return NONE if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def points(difference: float | None) -> str:
    """0.2 -> "+20.0"."""
    return NONE if difference is None else f"{100 * difference:+.1f}"


def points_interval(ends: Sequence[float] | None) -> str:
    """(-0.1, 0.2) -> "-10.0 to +20.0"."""
    return NONE if ends is None or None in ends else f"{points(ends[0])} to {points(ends[1])}"


def p_value(p: float | None) -> str:
    """Three digits, and never zero."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def number(value: float | None, digits: int = 3) -> str:
    """Significant digits."""
    return NONE if value is None else f"{value:.{digits}g}"
