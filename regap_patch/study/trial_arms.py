"""What else a trial shows: every arm and variant beside `off`, and the controls that could kill the claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from regap_patch.errors import StudyError

from .outcome_columns import MAIN
from .outcome_table import Outcome
from .trial_cells import EXPLORATORY, IMAGES, Trial, estimate

Pair = tuple[int, Outcome, Outcome | None]  # an LLM, a number of the reference, and the arm's


def arms(trial: Trial) -> list[dict[str, Any]]:
    """One entry an arm and variant, each against `off` of the same variant.

    `off` of a variant stands against `off` of the protocol's own setting. Numbers that an arm lacks are
    counted under `missing`; each difference says how many LLMs it is of.
    """
    treated, others = trial.treated, list(trial.protocol.arms.exploratory)
    entries = [_entry(trial, MAIN, treated, trial.llms)]
    entries += [_entry(trial, MAIN, arm, trial.explored) for arm in others]
    for variant in trial.protocol.variants:
        found = {row.arm for row in trial.outcomes.rows.values() if row.variant == variant and row.arm}
        extra = [arm for arm in others if arm in found]
        entries += [_entry(trial, variant, arm, trial.explored) for arm in (trial.off, treated, *extra)]
    return entries


def _entry(trial: Trial, variant: str, arm: str, llms: list[int]) -> dict[str, Any]:
    against, outcome = MAIN if arm == trial.off else variant, trial.protocol.outcome
    pairs = list(_pairs(trial, variant, arm, against, llms))

    def rise(over: str) -> Callable[[int], float]:
        return lambda llm: trial.rise(llm, arm, outcome.condition, over, variant=variant)

    def contrast(llm: int) -> float:
        reference = trial.rise(llm, trial.off, outcome.condition, outcome.baseline, variant=against)
        return rise(outcome.baseline)(llm) - reference

    found = {
        "variant": variant,
        "arm": arm,
        "against": {"variant": against, "arm": trial.off},
        "label": EXPLORATORY,
        "llms": llms,
        "contrast": _where_measured(trial, llms, contrast),
        "differences": [
            _difference(trial, pairs, key) for key in dict.fromkeys(row[3:6] for _, row, _ in pairs)
        ],
        "missing": [lack for llm in llms if (lack := _lack(pairs, llm, variant, arm))],
    }
    if arm == trial.off:
        found["gate"] = {
            "image_minus_words": _where_measured(trial, llms, rise("words")),
            "image_minus_text": _where_measured(trial, llms, rise("none")),
        }
    return found


def _pairs(trial: Trial, variant: str, arm: str, against: str, llms: list[int]) -> Iterator[Pair]:
    """Each number of the reference after a stage of training, and the arm's where it was measured."""
    for row in trial.outcomes.rows.values():
        if row.llm in llms and (row.variant, row.arm) == (against, trial.off):
            other = trial.outcomes.find(row.llm, arm, row.stage, row.condition, row.metric, variant=variant)
            yield row.llm, row, other


def _lack(pairs: list[Pair], llm: int, variant: str, arm: str) -> dict[str, Any] | None:
    """What an LLM lacks of the reference's numbers; all None if the reference has none either."""
    rows = [(row, other) for one, row, other in pairs if one == llm]
    lacking = [row._replace(variant=variant, arm=arm).key for row, other in rows if other is None]
    if rows and not lacking:
        return None
    return {"llm": llm, "lacks": len(lacking) or None, "first": lacking[0] if lacking else None}


def _difference(trial: Trial, pairs: list[Pair], key: tuple[str, str, str]) -> dict[str, Any]:
    values = {
        llm: other.value - row.value for llm, row, other in pairs if row[3:6] == key and other is not None
    }
    found = estimate(values, trial.level)
    numbers = {name: found[name] for name in ("n", "estimate", "sd", "low", "high", "p")}
    return dict(zip(("stage", "condition", "metric"), key, strict=True)) | numbers | {"llms": list(values)}


def _where_measured(trial: Trial, llms: list[int], value: Callable[[int], float]) -> dict[str, Any]:
    """Over the LLMs that have it; the others are named."""
    found, missing = {}, []
    for llm in llms:
        try:
            found[llm] = value(llm)
        except StudyError:  # noqa: PERF203 (one an LLM)
            missing.append(llm)
    return {**estimate(found, trial.level), "missing": missing}


def controls(trial: Trial) -> dict[str, Any]:
    """Contrasts beside the primary one, over the confirmatory LLMs, with what each would say."""
    off, treated, outcome = trial.off, trial.treated, trial.protocol.outcome
    image, text = outcome.condition, outcome.baseline
    asked: dict[str, tuple[str, Callable[[int], float]]] = {
        "words_minus_text": (
            "Arm off: does a context in words alone raise the rate? Then an image need not be the reason.",
            lambda llm: trial.rise(llm, off, "words", "none"),
        ),
        "text_after_minus_before": (
            "Arm off, bare text, after stage 2 minus after stage 1, which leaves the LLM as it was aligned: "
            "what fine-tuning alone erodes.",
            lambda llm: (
                trial.rate(llm, off, "none", stage="stage2") - trial.rate(llm, off, "none", stage="stage1")
            ),
        ),
        "image_between_arms": (
            f"{treated} minus off with the image: the first half of the primary contrast.",
            lambda llm: trial.rate(llm, treated, image) - trial.rate(llm, off, image),
        ),
        "text_between_arms": (
            f"{treated} minus off in text: its second half. It may fall because this rises.",
            lambda llm: trial.rate(llm, treated, text) - trial.rate(llm, off, text),
        ),
        "all_images": (
            "The primary contrast over all conditions with an image.",
            lambda llm: trial.contrast(llm, treated, IMAGES),
        ),
        "against_words": (
            "The primary contrast with words in place of bare text.",
            lambda llm: trial.contrast(llm, treated, over="words"),
        ),
        "after_stage1": (
            "The primary contrast before fine-tuning.",
            lambda llm: trial.contrast(llm, treated, stage="stage1"),
        ),
        "refusal_rate": (
            "The same contrast of refusals: above 0 where they come back.",
            lambda llm: trial.contrast(llm, treated, metric="refusal_rate"),
        ),
        "refusal_opener_prob": (
            "The same of the probability that an answer opens as a refusal: it moves where rates do not.",
            lambda llm: trial.contrast(llm, treated, metric="refusal_opener_prob"),
        ),
        "incoherent_rate": (
            "The same of incoherent answers: unsafe ones that became nonsense are no refusals.",
            lambda llm: trial.contrast(llm, treated, metric="incoherent_rate"),
        ),
    }
    return {
        name: {"about": about, "label": EXPLORATORY} | _where_measured(trial, trial.llms, value)
        for name, (about, value) in asked.items()
    }
