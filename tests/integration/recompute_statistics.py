"""The statistics of a study by numpy and scipy, written from what its report says of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize, stats

Point = tuple[int, str, float, float]  # LLM, stage, gap, rate


def over_llms(values: Mapping[int, float], level: float) -> dict[str, float | None]:
    """Mean over LLMs, with t interval and test against zero."""
    found = np.array(list(values.values()), dtype=float)
    facts: dict[str, float | None] = dict.fromkeys(("estimate", "sd", "stderr", "low", "high", "p"))
    facts["n"] = len(found)
    if len(found):
        facts["estimate"] = float(found.mean())
    if len(found) > 1 and np.ptp(found) == 0:
        mean = facts["estimate"]
        facts |= {"sd": 0.0, "stderr": 0.0, "low": mean, "high": mean, "p": float(mean == 0)}
    elif len(found) > 1:
        tested = stats.ttest_1samp(found, 0.0)
        interval = tested.confidence_interval(level)
        facts |= {
            "sd": float(found.std(ddof=1)),
            "stderr": float(stats.sem(found)),
            "p": float(tested.pvalue),
        }
        facts |= {"low": float(interval.low), "high": float(interval.high)}
    return facts


def power_facts(values: Sequence[float], level: float, asked: Mapping[str, Any]) -> dict[str, float | None]:
    """Of a two-sided t test over these values."""
    n, sd = len(values), float(np.std(values, ddof=1))

    def power(n: int, effect: float, sd: float) -> float:
        edge, shift = stats.t.ppf(0.5 + level / 2, n - 1), effect / sd * math.sqrt(n)
        return float(stats.nct.sf(edge, n - 1, shift) + stats.nct.cdf(-edge, n - 1, shift))

    def needed(sd: float) -> int:
        return next(n for n in range(2, 100_000) if power(n, asked["effect"], sd) >= asked["target"])

    pilot, most = asked["pilot_sd"], sd
    while power(n, most, sd) < asked["target"]:
        most *= 2
    found = optimize.brentq(lambda effect: power(n, effect, sd) - asked["target"], 1e-9, most, xtol=1e-14)
    return {
        "n": n,
        "sd": sd,
        "level": level,
        "effect": asked["effect"],
        "target": asked["target"],
        "achieved_power": power(n, asked["effect"], sd),
        "smallest_effect": found,
        "units_needed": needed(sd),
        "pilot_sd": pilot,
        "units_needed_by_pilot": None if pilot is None else needed(pilot),
    }


def correlated(points: Sequence[Point], level: float) -> dict[str, float | None]:
    """Of independent points."""
    found = stats.pearsonr([point[2] for point in points], [point[3] for point in points])
    interval = found.confidence_interval(level)
    n = len(points)
    return {"r": found.statistic, "low": interval.low, "high": interval.high, "clusters": n, "members": n}


def correlated_within(points: Sequence[Point], over: str, level: float) -> dict[str, float | None]:
    """Centred within LLM, each LLM weighing the same; interval from leaving out LLMs, on Fisher's scale."""
    llms = np.array([point[0] for point in points])
    groups = llms if over != "within_stage" else np.array([f"{point[0]}/{point[1]}" for point in points])
    gap, rate = (
        _centred(np.array([point[place] for point in points], dtype=float), groups) for place in (2, 3)
    )
    weights = np.array([1 / (llms == llm).sum() for llm in llms])

    def pearson(kept: np.ndarray) -> float:
        x, y, w = gap[kept], rate[kept], weights[kept]
        return float((w * x * y).sum() / math.sqrt((w * x * x).sum() * (w * y * y).sum()))

    names = np.unique(llms)
    left = np.arctanh([pearson(llms != llm) for llm in names])
    n, r = len(names), pearson(np.full(len(llms), True))
    reach = stats.t.ppf(0.5 + level / 2, n - 1) * math.sqrt((n - 1) * left.var())
    low, high = np.tanh(math.atanh(r) + np.array([-reach, reach]))
    return {"r": r, "low": float(low), "high": float(high), "clusters": n, "members": len(points)}


def _centred(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return values - np.array([values[groups == group].mean() for group in groups])
