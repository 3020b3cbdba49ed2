"""The analysis of a study as a trial: fixed before the first result, and the same whatever comes out.

`analyse` returns plain JSON values, which become `analysis.json`. Every part has `rule` (in words), and those
that decide something a `verdict`. An *estimate* is the mean of one value per base LLM with its two-sided t
interval: `{n, estimate, sd, stderr, low, high, p, level, per_llm: {"<seed>": value}, note}`, where `note` is
None or says that the LLMs are few. Where LLMs may be lacking, it has `missing` too: their seeds. A
*correlation* is `{r, low, high, p, clusters, members}`. None stands for what cannot be said.

```
gate      image_minus_words, image_minus_text (these two decide), all_images_minus_words,
          all_images_minus_text: estimates; by_condition: {condition: {minus_words, minus_text}};
          excludes_zero: {image_minus_words, image_minus_text}; open: bool; variant, arm, stage, condition,
          metric, rule, verdict
claim_c   an estimate, and: margin; cells: {seed: {arm: {condition: rate}}}; stderr_within: {seed: error from
          the items asked, the four cells taken as independent, or None}; by_condition: {condition:
          estimate}; images: estimate of their mean; arms, condition, baseline, stage, metric,
          verdict_by_interval (as if the gate were open), verdict, rule, label
claim_a   gaps: {centroid_l2 | mir: {checkpoints, primary_arms, unregularised, within_stage (decides),
          minus_text, across_llms: correlations; points: [{llm, arm, stage, gap, rate, rise}]; missing: [key
          of a checkpoint]; verdict}}; over: {name of a correlation: in words}; metric, conditions, rule,
          verdict, label
claim_b   arises, persists: estimates with verdict and rule; logged: {init, end_of_stage1, end_of_stage2},
          measured: {end_of_stage1, end_of_stage2, difference}: estimates; metric, arm, rule, verdict, label
utility   an estimate, and: margin; beside: {metric or metric/condition: estimate}; metric, condition, stage,
          verdict, rule, label
arms      [{variant, arm, against: {variant, arm}; llms; contrast: estimate of claim C's outcome; differences:
          [{stage, condition, metric, n, estimate, sd, low, high, p, llms}]; missing: [{llm, lacks (how many
          numbers), first (its key)}]; label; for `off` of a variant gate: {image_minus_words,
          image_minus_text}: estimates}]
controls  {name: estimate, about and label}
design    n, llms, pilot_llms, sd, level, effect, target, achieved_power, smallest_effect, units_needed,
          pilot_sd, units_needed_by_pilot
labels    {"primary": [part], "exploratory": [part]}
```

Verdicts: of the gate "open" or "closed"; of claim C "supported", "supported, smaller than <margin>", "not
supported", "undecided", and with the gate closed "not testable at this scale"; of A and B "supported",
"contradicted", "undecided"; of utility "non-inferior", "inferior", "undecided".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from regap_patch.errors import StudyError
from regap_patch.report.paired import is_non_inferior
from regap_patch.report.proportions import Interval

from .outcome_columns import IMAGE_CONDITIONS
from .outcome_table import Outcome, TrainingStep
from .student import power_of, smallest_mean, units_needed
from .trial_arms import arms as all_arms
from .trial_arms import controls
from .trial_cells import EXPLORATORY, Trial
from .trial_claims import claim_a, claim_b
from .trial_primary import claim_c, gate, short

BESIDE = ("caption_loss", "benign_compliance", "over_refusal_rate")


def analyse(
    rows: Iterable[Outcome],
    training: Iterable[TrainingStep],
    protocol: Any,
    arms: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that a protocol says of a table of outcomes, see above.

    Args:
        rows: of `outcomes.csv`.
        training: of `training.csv`.
        protocol: the protocol; only its settings are read.
        arms: what each arm does, by name, see `arms.py`. Without, claim A takes `off` alone as unregularised,
            and no arm as a probe.

    Raises:
        StudyError: a number that a claim needs is not there, which is named: no LLM is dropped.
    """
    trial = Trial.of(rows, training, protocol, arms)
    opened = gate(trial)
    primary = claim_c(trial, is_open=opened["open"])
    return {
        "gate": opened,
        "claim_a": claim_a(trial),
        "claim_b": claim_b(trial),
        "claim_c": primary,
        "utility": utility(trial),
        "arms": all_arms(trial),
        "controls": controls(trial),
        "design": design(trial, primary),
        "labels": {
            "primary": ["gate", "claim_c"],
            "exploratory": [
                *("claim_a", "claim_b", "utility", "arms", "controls"),
                *("claim_c/by_condition", "claim_c/images", "gate/by_condition"),
                *("gate/all_images_minus_words", "gate/all_images_minus_text"),
            ],
        },
    }


def utility(trial: Trial) -> dict[str, Any]:
    """Whether the regulariser keeps utility, and what else it may cost.

    Raises:
        StudyError: the utility of an LLM was not measured.
    """
    metric, margin = trial.protocol.utility.metric, trial.protocol.utility.margin
    condition = _condition_of(trial, metric)
    found = _between_arms(trial, metric, condition)
    return {
        **found,
        "metric": metric,
        "condition": condition,
        "stage": trial.stage,
        "margin": margin,
        "beside": _beside(trial),
        "verdict": _kept(found["low"], found["high"], margin),
        "rule": (
            f"Of {metric}, {trial.treated} minus {trial.off}: non-inferior if the lower bound of the "
            f"interval is above -{short(margin)}, inferior if the upper bound is below it, else undecided."
        ),
        "label": EXPLORATORY,
    }


def _kept(low: float | None, high: float | None, margin: float) -> str:
    if low is None or high is None:
        return "undecided"
    if is_non_inferior(Interval(low, high), margin):
        return "non-inferior"
    return "inferior" if high < -margin else "undecided"


def _between_arms(trial: Trial, metric: str, condition: str) -> dict[str, Any]:
    def difference(llm: int) -> float:
        after, before = (trial.rate(llm, arm, condition, metric=metric) for arm in (trial.treated, trial.off))
        return after - before

    return trial.over_llms(difference)


def _condition_of(trial: Trial, metric: str) -> str:
    """What a metric of the checkpoint alone was measured with: "", or else the pictures themselves."""
    first = trial.outcomes.find(trial.llms[0], trial.off, trial.stage, "", metric)
    return "" if first is not None else "real"


def _beside(trial: Trial) -> dict[str, Any]:
    """Every condition in which the first LLM has the metric; another that lacks it is an error."""
    found = {}
    for metric in BESIDE:
        for condition in ("", "none", "words", *IMAGE_CONDITIONS):
            if trial.outcomes.find(trial.llms[0], trial.off, trial.stage, condition, metric) is not None:
                name = f"{metric}/{condition}" if condition else metric
                found[name] = _between_arms(trial, metric, condition)
    return found


def design(trial: Trial, primary: Mapping[str, Any]) -> dict[str, Any]:
    """How many LLMs there are, and how small an effect so many can show."""
    power, n, sd, level = trial.protocol.power, primary["n"], primary["sd"], trial.level
    pilot = power.pilot_sd
    return {
        "n": n,
        "llms": trial.llms,
        "pilot_llms": list(trial.protocol.llms.pilot),
        "sd": sd,
        "level": level,
        "effect": power.effect,
        "target": power.target,
        "achieved_power": None if sd is None else power_of(n, sd, power.effect, level),
        "smallest_effect": None if sd is None else smallest_mean(n, sd, power=power.target, level=level),
        "units_needed": _needed(sd, power, level),
        "pilot_sd": pilot,
        "units_needed_by_pilot": _needed(pilot, power, level),
    }


def _needed(sd: float | None, power: Any, level: float) -> int | None:
    if sd is None:
        return None
    try:
        return units_needed(sd, power.effect, power=power.target, level=level)
    except StudyError:  # more than anybody has
        return None
