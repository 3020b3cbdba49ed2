"""The same items asked twice, with something between them changed: what that change does, pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regap_patch.report.bootstrap import bootstrap, sign_flip
from regap_patch.report.cells import UNKNOWN_LIMIT, bootstrap_fields
from regap_patch.report.outcomes import Outcome, clusters_of
from regap_patch.report.paired import PairedTable, holm, is_non_inferior, mcnemar, newcombe
from regap_patch.report.proportions import LEVEL, Interval

MARGIN = 0.01


def contrast_of(
    reference: Sequence[Outcome], other: Sequence[Outcome], *, margin: float | None = None
) -> dict[str, Any]:
    """The other arm minus the reference, over the items that both hold.

    Pairs of which one value is unknown are left out of the estimate and counted; `bounds` are the
    differences over all pairs if the unknown values were chosen for and against.

    Args:
        reference: outcomes of one arm.
        other: of the other.
        margin: of non-inferiority, where more is better; None where that is no question.

    Returns:
        Plain JSON values; `difference` and what follows from it are None without a pair that is known.
    """
    by_uid = {outcome.uid: outcome for outcome in reference}
    pairs = [(by_uid[outcome.uid], outcome) for outcome in other if outcome.uid in by_uid]
    known = [pair for pair in pairs if pair[0].value is not None and pair[1].value is not None]
    unknown = len(pairs) - len(known)
    found: dict[str, Any] = {
        "pairs": len(pairs),
        "unpaired": len(by_uid) + len(other) - 2 * len(pairs),
        "known": len(known),
        "unknown": unknown,
        "incomplete": not pairs or unknown > UNKNOWN_LIMIT * len(pairs),
        "bounds": _bounds(pairs),
        "level": LEVEL,
        "margin": margin,
    }
    return found | (_estimate(known, margin) if known else dict.fromkeys(_ESTIMATED))


_ESTIMATED = (
    "table",
    "rate_reference",
    "rate",
    "difference",
    "low",
    "high",
    "method",
    "bootstrap",
    "p",
    "mid_p",
    "cluster_p",
    "non_inferior",
)


def _estimate(known: Sequence[tuple[Outcome, Outcome]], margin: float | None) -> dict[str, Any]:
    values = [(first.value or 0.0, second.value or 0.0) for first, second in known]
    n = len(values)
    clusters = clusters_of(
        (first.cluster, value[1] - value[0]) for (first, _), value in zip(known, values, strict=True)
    )
    counted = all(value in (0.0, 1.0) for pair in values for value in pair)
    resampled = bootstrap([clusters], within=(-1.0, 1.0)) if not counted or len(clusters) < n else None
    table = PairedTable.of((bool(first), bool(second)) for first, second in values) if counted else None
    if resampled is not None and (table is None or margin is not None):
        interval, method = resampled.bca or resampled.percentile, "cluster bootstrap"
    else:
        assert table is not None
        interval, method = newcombe(table), "Newcombe's method 10"
    p, mid_p = (None, None) if table is None else mcnemar(table)
    return {
        "table": None if table is None else _fields(table),
        "rate_reference": sum(first for first, _ in values) / n,
        "rate": sum(second for _, second in values) / n,
        "difference": sum(second - first for first, second in values) / n,
        "low": interval.low,
        "high": interval.high,
        "method": method,
        "bootstrap": None if resampled is None else bootstrap_fields(resampled),
        "p": p,
        "mid_p": mid_p,
        "cluster_p": None if resampled is None else sign_flip([total for total, _ in clusters]),
        "non_inferior": None if margin is None else is_non_inferior(Interval(*interval), margin),
    }


def _fields(table: PairedTable) -> dict[str, int]:
    return {
        "both": table.both,
        "reference_only": table.reference_only,
        "other_only": table.other_only,
        "neither": table.neither,
    }


def _bounds(pairs: Sequence[tuple[Outcome, Outcome]]) -> list[float] | None:
    if not pairs:
        return None
    low = sum(_or(second.value, 0.0) - _or(first.value, 1.0) for first, second in pairs)
    high = sum(_or(second.value, 1.0) - _or(first.value, 0.0) for first, second in pairs)
    return [low / len(pairs), high / len(pairs)]


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def with_holm(contrasts: Sequence[Mapping[str, Any]], family: Sequence[str]) -> list[dict[str, Any]]:
    """Add `p_holm`, Holm's adjusted p: one family for each combination of the fields named.

    What is adjusted is the p by clusters where items depend on each other or are graded, else the mid-p.
    """
    families: dict[tuple[Any, ...], dict[int, float]] = {}
    for number, contrast in enumerate(contrasts):
        p = contrast["mid_p"] if contrast["cluster_p"] is None else contrast["cluster_p"]
        if p is not None:
            families.setdefault(tuple(contrast[name] for name in family), {})[number] = p
    adjusted = {number: p for p_values in families.values() for number, p in holm(p_values).items()}
    return [
        {**contrast, "p_holm": adjusted.get(number), "holm_family": list(family)}
        for number, contrast in enumerate(contrasts)
    ]
