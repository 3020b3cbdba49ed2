"""Claim A (a larger gap goes with a higher unsafe rate) and claim B (the gap arises and persists)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import asdict
from typing import Any, NamedTuple

from regap_patch.errors import StudyError

from .clustered import centred, correlation_between, correlation_within
from .outcome_columns import MAIN
from .trial_cells import EXPLORATORY, IMAGES, Trial, above_or_below

GAP_METRICS = ("centroid_l2", "mir")
PRETRAINED, TUNED = "stage1", "stage2"
TAIL = 0.1  # a trained value is the mean over this last part of the steps
KEPT = 0.5  # share of the gap that has to be left for "persists"
_OVER = {
    "checkpoints": "every arm after both stages, centred within LLM",
    "primary_arms": "the primary arms after both stages, centred within LLM",
    "unregularised": "arms that train without a regulariser, centred within LLM",
    "within_stage": "every arm, centred within LLM and stage",
    "minus_text": "every arm, the rate minus that of bare text at the same stage, centred within LLM",
    "across_llms": "the arm off after stage 2, one point an LLM; LLMs differ in more than their gap",
}


class Checkpoint(NamedTuple):
    """A point of claim A.

    Attributes:
        llm: seed of its LLM.
        arm: how its projector was trained.
        stage: after which it was measured.
        gap: by one of `GAP_METRICS`.
        rate: of unsafe answers, mean over the conditions with an image.
        rise: that, minus the rate of bare text.
    """

    llm: int
    arm: str
    stage: str
    gap: float
    rate: float
    rise: float


def claim_a(trial: Trial) -> dict[str, Any]:
    """Correlation of gap and unsafe rate over the checkpoints of each LLM.

    Raises:
        StudyError: a checkpoint of a primary arm was not measured.
    """
    gaps = {metric: _gap_and_rate(trial, metric) for metric in GAP_METRICS}
    verdicts = {found["verdict"] for found in gaps.values()}
    return {
        "metric": trial.protocol.outcome.metric,
        "conditions": trial.images,
        "over": _OVER,
        "gaps": gaps,
        "rule": (
            "For each measure of the gap: supported if the interval of the correlation over all checkpoints, "
            "centred within LLM and stage, lies above 0; contradicted if it lies below; else undecided. "
            "Between the stages the rates rise for other reasons than the gap, so no such difference counts. "
            "For the claim: what both measures say, undecided if they differ."
        ),
        "verdict": _agreed(verdicts),
        "label": EXPLORATORY,
    }


def _agreed(verdicts: Set[str]) -> str:
    return next(iter(verdicts)) if len(verdicts) == 1 else "undecided"


def _gap_and_rate(trial: Trial, metric: str) -> dict[str, Any]:
    points, missing = _checkpoints(trial, metric)
    tuned_off = [point for point in points if (point.arm, point.stage) == (trial.off, TUNED)]

    def within(some: Iterable[Checkpoint]) -> dict[str, Any]:
        return asdict(correlation_within(_by_llm((point.llm, _pair(point)) for point in some), trial.level))

    within_stage = asdict(correlation_within(_by_llm(_off_stage(points)), trial.level))
    return {
        "checkpoints": within(points),
        "primary_arms": within(point for point in points if point.arm in trial.protocol.arms.primary),
        "unregularised": within(point for point in points if _is_plain(trial, point.arm)),
        "within_stage": within_stage,
        "minus_text": within(point._replace(rate=point.rise) for point in points),
        "across_llms": asdict(correlation_between([_pair(point) for point in tuned_off], trial.level)),
        "points": [point._asdict() for point in points],
        "missing": missing,
        "verdict": above_or_below(within_stage["low"], within_stage["high"]),
    }


def _checkpoints(trial: Trial, metric: str) -> tuple[list[Checkpoint], list[str]]:
    """All of the primary arms, those of exploratory arms that were measured, and names of the others."""
    points, missing = [], []
    for arm in (*trial.protocol.arms.primary, *trial.protocol.arms.exploratory):
        needed = arm in trial.protocol.arms.primary
        if not needed and _is_probe(trial, arm):
            continue
        for llm in trial.llms if needed else trial.explored:
            for stage in (PRETRAINED, TUNED):
                try:
                    points.append(_checkpoint(trial, llm, arm, stage, metric))
                except StudyError:  # noqa: PERF203 (a few dozen)
                    if needed:
                        raise
                    missing.append(f"{MAIN}/llm-{llm}/{arm}/{stage}")
    return points, missing


def _checkpoint(trial: Trial, llm: int, arm: str, stage: str, metric: str) -> Checkpoint:
    gap = trial.outcomes.value(llm, arm, stage, "", metric)
    rate = trial.rate(llm, arm, IMAGES, stage=stage)
    return Checkpoint(llm, arm, stage, gap, rate, trial.rise(llm, arm, IMAGES, "none", stage=stage))


def _is_probe(trial: Trial, arm: str) -> bool:
    """Whether what it shows in the picture's place is no output of a projector, or that of another arm."""
    known = trial.arms.get(arm)
    return known is not None and (known.words != "scene" or known.surgery == "text_centroid")


def _is_plain(trial: Trial, arm: str) -> bool:
    known = trial.arms.get(arm)
    if known is None:
        return arm == trial.off
    return bool(known.own_stage1 and known.stage1.regap_loss == "off")


def _pair(point: Checkpoint) -> tuple[float, float]:
    return point.gap, point.rate


def _by_llm(pairs: Iterable[tuple[int, tuple[float, float]]]) -> dict[int, list[tuple[float, float]]]:
    found: dict[int, list[tuple[float, float]]] = {}
    for llm, pair in pairs:
        found.setdefault(llm, []).append(pair)
    return found


def _off_stage(points: Sequence[Checkpoint]) -> list[tuple[int, tuple[float, float]]]:
    """Every pair with the means of its LLM and stage taken off."""
    groups: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for point in points:
        groups.setdefault((point.llm, point.stage), []).append(_pair(point))
    return [(llm, pair) for (llm, _), pairs in groups.items() for pair in centred(pairs)]


def claim_b(trial: Trial) -> dict[str, Any]:
    """The gap of arm off from the new projector to the end of fine-tuning.

    Raises:
        StudyError: an LLM without logged steps of stage 1 or 2, or without a measured gap.
    """

    def measured(stage: str) -> Callable[[int], float]:
        return lambda llm: trial.outcomes.value(llm, trial.off, stage, "", "centroid_l2")

    def first(llm: int) -> float:
        return _logged(trial, llm, PRETRAINED)[0]

    last, pretrained, tuned = _end(trial, PRETRAINED), measured(PRETRAINED), measured(TUNED)
    rise = trial.over_llms(lambda llm: last(llm) - first(llm))
    kept = trial.over_llms(lambda llm: tuned(llm) - KEPT * pretrained(llm))
    parts = {
        "arises": {
            **rise,
            "verdict": above_or_below(rise["low"], rise["high"]),
            "rule": (
                "Logged while stage 1 trains, at its end (mean of the last tenth) minus at its first step: "
                "supported if the interval lies above 0, contradicted if below, else undecided."
            ),
        },
        "persists": {
            **kept,
            "verdict": above_or_below(kept["low"], kept["high"]),
            "rule": (
                "Measured on the same held-out pairs, after stage 2 minus half of that after stage 1: "
                "supported if the interval lies above 0, contradicted if below, else undecided."
            ),
        },
    }
    verdicts = {part["verdict"] for part in parts.values()}
    return {
        "metric": "centroid_l2",
        "arm": trial.off,
        **parts,
        "logged": {
            "init": trial.over_llms(first),
            "end_of_stage1": trial.over_llms(last),
            "end_of_stage2": trial.over_llms(_end(trial, TUNED)),
        },
        "measured": {
            "end_of_stage1": trial.over_llms(pretrained),
            "end_of_stage2": trial.over_llms(tuned),
            "difference": trial.over_llms(lambda llm: tuned(llm) - pretrained(llm)),
        },
        "rule": (
            "Supported if the gap both arises in pretraining and persists, contradicted if either is "
            "contradicted, else undecided."
        ),
        "verdict": "contradicted" if "contradicted" in verdicts else _agreed(verdicts),
        "label": EXPLORATORY,
    }


def _end(trial: Trial, stage: str) -> Callable[[int], float]:
    def end(llm: int) -> float:
        values = _logged(trial, llm, stage)
        tail = values[-max(1, round(len(values) * TAIL)) :]
        return sum(tail) / len(tail)

    return end


def _logged(trial: Trial, llm: int, stage: str) -> list[float]:
    """The gap at each logged step, in order."""
    steps = sorted(
        (row.step, row.centroid_l2)
        for row in trial.training
        if (row.variant, row.llm, row.arm, row.stage) == (MAIN, llm, trial.off, stage)
    )
    if not steps:
        raise StudyError(
            f"The analysis needs the gap along {MAIN}/llm-{llm}/{trial.off}/{stage}, but the table of "
            f"training steps has none of it: let `regap study run` finish, then analyse again."
        )
    return [gap for _, gap in steps]
