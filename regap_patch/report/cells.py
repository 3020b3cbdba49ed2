"""One cell of the tables: a rate with its denominator, its intervals and what it hides."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from regap_patch.errors import ReportError
from regap_patch.report.bootstrap import Bootstrapped, bootstrap
from regap_patch.report.outcomes import CLASSES, MEASURES, Outcome, class_of, clusters_of, outcomes_of
from regap_patch.report.proportions import LEVEL, Interval, rogan_gladen, wilson, zero_event_upper
from regap_patch.report.run_folder import Item

UNKNOWN_LIMIT = 0.02  # above this share the rate is not a result
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

Validation = Mapping[str, Sequence[float]]  # sensitivity: (found, all), specificity: (let pass, all)


def cell_of(items: Sequence[Item], judge: str, validation: Validation | None = None) -> dict[str, Any]:
    """The numbers of these items, which are of one kind, under one judge.

    Args:
        items: at least one.
        judge: whose verdicts count.
        validation: how this judge fared against people; then the rate is also given with its errors taken
            out.

    Returns:
        Plain JSON values. `n` counts all items, `k` is the sum of the values that are known, `rate` is k/n,
        `bounds` are the rates if no, or every, unknown item counted.
    """
    outcomes = outcomes_of(items, judge)
    known = [outcome for outcome in outcomes if outcome.value is not None]
    n, unknown = len(outcomes), len(outcomes) - len(known)
    k = sum(outcome.value or 0.0 for outcome in known)
    counted = all(outcome.value in (0.0, 1.0) for outcome in known)
    kind = items[0].sample.kind
    resampled = _resampled(outcomes) if not counted or _is_clustered(outcomes) else None
    interval = wilson(round(k), n) if counted else _interval(resampled)
    classes = Counter(class_of(item, judge) for item in items)
    return {
        "kind": kind,
        "measure": MEASURES[kind],
        "n": n,
        "k": int(k) if counted else k,
        "rate": k / n,
        "low": interval.low,
        "high": interval.high,
        "method": "Wilson" if counted else "cluster bootstrap",
        "level": LEVEL,
        "unknown": unknown,
        "bounds": [k / n, (k + unknown) / n],
        "bounds_interval": _bounds_interval(round(k), unknown, n) if counted else None,
        "zero_event_upper": zero_event_upper(n) if counted and k == 0 and unknown == 0 else None,
        "incomplete": unknown > UNKNOWN_LIMIT * n,
        "classes": {name: classes[name] for name in CLASSES},
        "truncated": _truncated(items),
        "truncated_input": _share(
            items, lambda item: judge in item.verdicts and item.verdicts[judge].truncated_input
        ),
        "first_token_refusal_prob": _mean_refusal(items),
        "clusters": len({outcome.cluster for outcome in outcomes}),
        "whole_clusters": _whole_clusters(outcomes)
        if kind == "utility" and _is_clustered(outcomes)
        else None,
        "bootstrap": None if resampled is None else bootstrap_fields(resampled),
        "thresholds": _threshold_curve(items, judge) if kind == "harm" else None,
        "corrected": _corrected(round(k), n - unknown, validation) if kind == "harm" else None,
    }


def macro_of(items: Sequence[Item], judge: str) -> dict[str, Any] | None:
    """The mean of the scenarios' rates, each weighing the same; None with fewer than two scenarios."""
    scenarios: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        scenarios[item.sample.scenario].append(item)
    if len(scenarios) < 2:
        return None
    strata = [_clusters(outcomes_of(part, judge)) for part in scenarios.values()]
    rates = [sum(value for value, _ in stratum) / sum(count for _, count in stratum) for stratum in strata]
    found = bootstrap(strata)
    return {
        "rate": sum(rates) / len(rates),
        "low": found.percentile.low,
        "high": found.percentile.high,
        "scenarios": len(scenarios),
        "method": "cluster bootstrap within scenarios, percentile",
    }


def bootstrap_fields(found: Bootstrapped) -> dict[str, Any]:
    """As JSON."""
    return {
        "percentile": list(found.percentile),
        "bca": None if found.bca is None else list(found.bca),
        "stderr": found.stderr,
        "clusters": found.clusters,
        "resamples": found.resamples,
    }


def _clusters(outcomes: Sequence[Outcome]) -> list[tuple[float, float]]:
    return clusters_of((outcome.cluster, outcome.value or 0.0) for outcome in outcomes)


def _is_clustered(outcomes: Sequence[Outcome]) -> bool:
    return len({outcome.cluster for outcome in outcomes}) < len(outcomes)


def _resampled(outcomes: Sequence[Outcome]) -> Bootstrapped:
    return bootstrap([_clusters(outcomes)])


def _interval(found: Bootstrapped | None) -> Interval:
    assert found is not None
    return found.bca or found.percentile


def _bounds_interval(k: int, unknown: int, n: int) -> list[float]:
    return [wilson(k, n).low, wilson(k + unknown, n).high]


def _truncated(items: Sequence[Item]) -> float | None:
    """Share of answers that ran into the limit; None where those who asked were not told."""
    reasons = [item.answer.finish_reason for item in items if item.answer is not None]
    return None if "unknown" in reasons else reasons.count("length") / len(items)


def _share(items: Sequence[Item], holds: Any) -> float:
    return sum(map(bool, map(holds, items))) / len(items)


def _whole_clusters(outcomes: Sequence[Outcome]) -> float:
    """Share of clusters of which every item has the full score: MME's accuracy-plus, by its images."""
    whole: dict[str, bool] = {}
    for outcome in outcomes:
        whole[outcome.cluster] = whole.get(outcome.cluster, True) and outcome.value == 1.0
    return sum(whole.values()) / len(whole)


def _mean_refusal(items: Sequence[Item]) -> float | None:
    """Over the answers for which the target gave it."""
    answers = [item.answer for item in items if item.answer is not None]
    found = [answer.first_token_refusal_prob for answer in answers]
    known = [probability for probability in found if probability is not None]
    return sum(known) / len(known) if known else None


def _threshold_curve(items: Sequence[Item], judge: str) -> list[list[float]] | None:
    """[threshold, unsafe rate] if the label follows from a probability by a threshold, else None."""
    verdicts = [item.verdicts[judge] for item in items if judge in item.verdicts]
    scored = [verdict for verdict in verdicts if verdict.label != "unscored"]
    if not scored or any(verdict.score is None or not 0 <= verdict.score <= 1 for verdict in scored):
        return None
    safe = [verdict.score or 0.0 for verdict in scored if verdict.label == "safe"]
    unsafe = [verdict.score or 0.0 for verdict in scored if verdict.label == "unsafe"]
    if safe and unsafe and max(safe) > min(unsafe):
        return None
    return [[cut, sum(score > cut for score in (*safe, *unsafe)) / len(items)] for cut in THRESHOLDS]


def _corrected(k: int, n: int, validation: Validation | None) -> dict[str, float] | None:
    if validation is None or n == 0:
        return None
    found, unsafe = validation["sensitivity"]
    passed, safe = validation["specificity"]
    try:
        return rogan_gladen(k, n, (found, unsafe), (passed, safe))._asdict()
    except ReportError:  # a judge that is no better than chance: there is nothing to correct by
        return None
