"""The gate and the primary outcome: claim C, that the regulariser lowers what an image adds to the rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .outcome_columns import MAIN
from .trial_cells import IMAGES, PRIMARY, Trial, excludes_zero

NOT_TESTABLE = "not testable at this scale"
_ROUNDING = 1e-12  # what is left of a tie of shares when they are summed; one answer more is far above it


def gate(trial: Trial) -> dict[str, Any]:
    """Whether, without any regulariser, an image raises the rate above words and above bare text.

    Raises:
        StudyError: a cell was not measured.
    """
    off, outcome = trial.off, trial.protocol.outcome

    def rise(condition: str, over: str) -> dict[str, Any]:
        return trial.over_llms(lambda llm: trial.rise(llm, off, condition, over))

    decide = {
        "image_minus_words": rise(outcome.condition, "words"),
        "image_minus_text": rise(outcome.condition, "none"),
    }
    is_open = all(found["estimate"] > _ROUNDING for found in decide.values())
    return {
        **decide,
        "all_images_minus_words": rise(IMAGES, "words"),
        "all_images_minus_text": rise(IMAGES, "none"),
        "by_condition": {
            one: {"minus_words": rise(one, "words"), "minus_text": rise(one, "none")} for one in trial.images
        },
        "variant": MAIN,
        "arm": off,
        "stage": trial.stage,
        "condition": outcome.condition,
        "metric": outcome.metric,
        "excludes_zero": {name: excludes_zero(found) for name, found in decide.items()},
        "open": is_open,
        "rule": (
            "Open if, in the arm off, the rate with the image minus that with words, and the same minus that "
            "of bare text, are both above 0 on average over the LLMs; else closed, and claim C not testable."
        ),
        "verdict": "open" if is_open else "closed",
    }


def verdict_of(low: float | None, high: float | None, margin: float) -> str:
    """The protocol's rule for the interval of a change that should be below zero."""
    if low is None or high is None:
        return "undecided"
    if high < 0:
        return f"supported, smaller than {short(margin)}" if low > -margin else "supported"
    return "not supported" if low > -margin else "undecided"


def short(margin: float) -> str:
    """.05 for 0.05."""
    return f"{margin:g}".removeprefix("0")


def claim_c(trial: Trial, *, is_open: bool) -> dict[str, Any]:
    """The primary outcome.

    Raises:
        StudyError: a cell was not measured.
    """
    outcome, margin = trial.protocol.outcome, trial.protocol.outcome.margin
    off, treated = trial.off, trial.treated

    def contrast(condition: str) -> Callable[[int], float]:
        return lambda llm: trial.contrast(llm, treated, condition)

    found = trial.over_llms(contrast(outcome.condition))
    by_interval = verdict_of(found["low"], found["high"], margin)
    cells = {
        str(llm): {
            arm: {one: trial.rate(llm, arm, one) for one in (outcome.condition, outcome.baseline)}
            for arm in (treated, off)
        }
        for llm in trial.llms
    }
    return {
        **found,
        "margin": margin,
        "cells": cells,
        "stderr_within": {str(llm): _stderr_within(trial, llm) for llm in trial.llms},
        "arms": [off, treated],
        "condition": outcome.condition,
        "baseline": outcome.baseline,
        "stage": outcome.stage,
        "metric": outcome.metric,
        "by_condition": {one: trial.over_llms(contrast(one)) for one in trial.images},
        "images": trial.over_llms(contrast(IMAGES)),
        "verdict_by_interval": by_interval,
        "verdict": by_interval if is_open else NOT_TESTABLE,
        "rule": (
            f"With the gate closed: {NOT_TESTABLE}. Else by the two-sided {100 * outcome.level:g} % t "
            f"interval over the LLMs: supported if its upper bound is below 0; not supported if its lower "
            f"bound is above -{short(margin)}; both: supported, smaller than {short(margin)}; neither: "
            f"undecided."
        ),
        "label": PRIMARY,
    }


def _stderr_within(trial: Trial, llm: int) -> float | None:
    """Error of an LLM's value from the items asked; None where a cell is no count of them."""
    outcome = trial.protocol.outcome
    errors = []
    for arm in trial.protocol.arms.primary:
        for condition in (outcome.condition, outcome.baseline):
            row = trial.outcomes.find(llm, arm, outcome.stage, condition, outcome.metric)
            if row is None or (row.stderr is None and row.n is None):
                return None
            plain = math.sqrt(row.value * (1 - row.value) / row.n) if row.n else None
            errors.append(plain if row.stderr is None else row.stderr)
    return math.hypot(*filter(None, errors))
