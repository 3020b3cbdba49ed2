"""A study's numbers once more, from verdicts, answers and logs: by numpy and scipy, by nothing of ours.

`recompute(folder, source)` takes a source as the study's page names it and gives the number, without a look
into any file that holds it: it reads the protocol, where each branch lies (`study.json`), and there

* samples, answers and verdicts, line by line; never a `metrics.json`;
* the samples of `gap.json`, the layers of `mir.json`, the pairs of `captions.json`; never their means;
* the log in `trainer_state.json`.

Of `analysis.json` it reads which stage, condition and metric the n-th difference of an arm is of: an address.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.integration.recompute_statistics import correlated, correlated_within, over_llms, power_facts
from tests.integration.study_folders import Folders, Place, read_yaml

MAIN = "main"
ARMS = Path(__file__).parents[2] / "scripts" / "study" / "arms"


def recompute(folder: str | Path, source: str) -> float | None:
    """The number of a source; None where too few LLMs have it."""
    file, _, key = source.partition("#")
    study = _study(str(folder))
    if file == "analysis.json":
        return study.analysed(key.split("/")[1:])
    parts = key.split("/")
    if file == "outcomes.csv":
        variant, llm, arm, stage, condition, metric, *column = parts
        cell = study.cell(Place(variant, int(llm[4:]), arm, stage), _blank(condition), metric)
        return getattr(cell, column[0] if column else "value")
    if file == "training.csv":
        variant, llm, arm, stage, step, column = parts
        return study.log(Place(variant, int(llm[4:]), arm, stage))[int(step)][f"regap/{column}"]
    if file == "means.csv":
        variant, arm, stage, condition, metric, *column = parts
        values = study.everywhere(variant, arm, stage, _blank(condition), metric)
        name = {"llms": "n", "mean": "estimate"}.get(*[(column or ["mean"])[0]] * 2)
        return over_llms(values, study.level)[name]
    raise KeyError(f"nothing is measured in {file}")


def _blank(word: str) -> str:
    return "" if word == "-" else word


@lru_cache(maxsize=4)
def _study(folder: str) -> Study:
    return Study(Path(folder))


class Study(Folders):
    """The protocol's numbers, from what lies in its folders."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.level = self.plan["outcome"]["level"]
        self.llms, self.explored = (self.plan["llms"][part] for part in ("confirmatory", "exploratory"))
        self.off, self.treated = self.plan["arms"]["primary"]
        arms = json.loads((folder / "analysis.json").read_text())["arms"]
        self.addresses = [arm["differences"] for arm in arms]
        self.modes = [mode for mode in self.plan["measures"]["image_modes"] if mode not in ("none", "words")]

    def everywhere(self, variant: str, arm: str, stage: str, condition: str, metric: str) -> dict[int, float]:
        whole = variant == MAIN and arm in (self.off, self.treated)
        llms = self.llms if whole else self.explored
        places = (Place(variant, llm, arm, stage) for llm in llms)
        return {
            place.llm: self.cell(place, condition, metric).value for place in places if self.is_there(place)
        }

    def rate(self, llm: int, arm: str, condition: str, **where: str) -> float:
        outcome = {
            "variant": MAIN,
            "stage": self.plan["outcome"]["stage"],
            "metric": self.plan["outcome"]["metric"],
        }
        found = outcome | where
        place = Place(found["variant"], llm, arm, found["stage"])
        modes = self.modes if condition == "images" else [condition]
        return float(np.mean([self.cell(place, mode, found["metric"]).value for mode in modes]))

    def rise(self, llm: int, arm: str, condition: str, over: str, **where: str) -> float:
        return self.rate(llm, arm, condition, **where) - self.rate(llm, arm, over, **where)

    def contrast(self, llm: int, arm: str, condition: str, over: str = "", **where: str) -> float:
        over = over or self.plan["outcome"]["baseline"]
        return self.rise(llm, arm, condition, over, **where) - self.rise(
            llm, self.off, condition, over, **where
        )

    def analysed(self, path: Sequence[str]) -> float | None:
        names = [name.replace("~1", "/").replace("~0", "~") for name in path]
        if names[-1] == "margin":
            return self.plan["outcome" if names[0] == "claim_c" else "utility"]["margin"]
        if names[0] == "design":
            return self._design(names[1:])
        if names[0] == "claim_a":
            return self._correlation(*names[2:])
        *where, field = names
        if where[-1] == "per_llm":
            return self.per_llm(where[:-1])[int(field)]
        return over_llms(self.per_llm(where), self.level)[field]

    def per_llm(self, where: Sequence[str]) -> dict[int, float]:
        """One value per LLM behind an estimate of the analysis."""
        part, *names = where
        if part == "arms":
            return self._arm(int(names[0]), names[1:])
        value = getattr(self, f"_{part}")(*names)
        return {llm: value(llm) for llm in self.llms}

    def _gate(self, name: str, *rest: str) -> Callable[[int], float]:
        condition = "images" if name.startswith("all_images") else self.plan["outcome"]["condition"]
        if name == "by_condition":
            condition, name = rest
        over = "words" if name.endswith("words") else "none"
        return lambda llm: self.rise(llm, self.off, condition, over)

    def _claim_c(self, name: str = "", mode: str = "") -> Callable[[int], float]:
        condition = mode or ("images" if name == "images" else self.plan["outcome"]["condition"])
        return lambda llm: self.contrast(llm, self.treated, condition)

    def _claim_b(self, part: str, name: str = "") -> Callable[[int], float]:
        def logged(llm: int, moment: str) -> float:
            log = self.log(Place(MAIN, llm, self.off, "stage2" if moment == "end_of_stage2" else "stage1"))
            gaps = [log[step]["regap/centroid_l2"] for step in sorted(log)]
            return gaps[0] if moment == "init" else float(np.mean(gaps[-max(1, round(len(gaps) / 10)) :]))

        def measured(llm: int, moment: str) -> float:
            return self.cell(
                Place(MAIN, llm, self.off, moment.removeprefix("end_of_")), "", "centroid_l2"
            ).value

        first, last = "end_of_stage1", "end_of_stage2"
        if part == "arises":
            return lambda llm: logged(llm, first) - logged(llm, "init")
        if part == "persists":
            return lambda llm: measured(llm, last) - measured(llm, first) / 2
        if name == "difference":
            return lambda llm: measured(llm, last) - measured(llm, first)
        return lambda llm: (logged if part == "logged" else measured)(llm, name)

    def _utility(self, beside: str = "", name: str = "") -> Callable[[int], float]:
        metric, _, condition = name.partition("/")
        if not beside:
            metric, condition = self.plan["utility"]["metric"], "real"
        return lambda llm: (
            self.rate(llm, self.treated, condition, metric=metric)
            - self.rate(llm, self.off, condition, metric=metric)
        )

    def _controls(self, name: str) -> Callable[[int], float]:
        image, text = (self.plan["outcome"][part] for part in ("condition", "baseline"))
        shifted = {
            "words_minus_text": lambda llm: self.rise(llm, self.off, "words", "none"),
            "text_after_minus_before": lambda llm: (
                self.rate(llm, self.off, "none") - self.rate(llm, self.off, "none", stage="stage1")
            ),
            "image_between_arms": lambda llm: (
                self.rate(llm, self.treated, image) - self.rate(llm, self.off, image)
            ),
            "text_between_arms": lambda llm: (
                self.rate(llm, self.treated, text) - self.rate(llm, self.off, text)
            ),
            "all_images": lambda llm: self.contrast(llm, self.treated, "images"),
            "against_words": lambda llm: self.contrast(llm, self.treated, image, "words"),
            "after_stage1": lambda llm: self.contrast(llm, self.treated, image, stage="stage1"),
        }
        return shifted.get(name) or (lambda llm: self.contrast(llm, self.treated, image, metric=name))

    def _arm(self, number: int, names: Sequence[str]) -> dict[int, float]:
        plan = self.plan["arms"]
        entries = [(MAIN, arm) for arm in (self.treated, *plan["exploratory"])]
        entries += [(variant, arm) for variant in self.plan["variants"] for arm in (self.off, self.treated)]
        variant, arm = entries[number]
        against = MAIN if arm == self.off else variant
        llms = self.llms if (variant, arm) == (MAIN, self.treated) else self.explored
        image, text = (self.plan["outcome"][part] for part in ("condition", "baseline"))
        stage, place = self.plan["outcome"]["stage"], {}
        if names[0] == "differences":
            place = self.addresses[number][int(names[1])]
            stage = place["stage"]
        llms = [llm for llm in llms if self.is_there(Place(variant, llm, arm, stage))]
        if names[0] == "gate":
            over = "words" if names[1].endswith("words") else "none"
            return {llm: self.rise(llm, arm, image, over, variant=variant) for llm in llms}
        if names[0] == "contrast":
            return {
                llm: self.rise(llm, arm, image, text, variant=variant)
                - self.rise(llm, self.off, image, text, variant=against)
                for llm in llms
            }
        condition, metric = place["condition"], place["metric"]
        return {
            llm: self.cell(Place(variant, llm, arm, stage), condition, metric).value
            - self.cell(Place(against, llm, self.off, stage), condition, metric).value
            for llm in llms
        }

    def _design(self, names: Sequence[str]) -> float | None:
        power = self.plan["power"]
        if names[0] == "llms":
            return self.llms[int(names[1])]
        contrasts = self.per_llm(["claim_c"])
        return power_facts(list(contrasts.values()), self.level, power)[names[0]]

    def _correlation(self, metric: str, over: str, field: str) -> float | None:
        arms = {name: read_yaml(ARMS / f"{name}.yaml") for name in self._arms()}
        shown = [name for name, arm in arms.items() if not _is_probe(arm)]
        if over == "primary_arms":
            shown = [self.off, self.treated]
        if over == "unregularised":
            shown = [name for name in shown if _is_plain(arms[name])]
        points = [
            (
                llm,
                stage,
                self.cell(Place(MAIN, llm, arm, stage), "", metric).value,
                self._with_image(llm, arm, stage, over),
            )
            for arm in shown
            for llm in (self.llms if arm in (self.off, self.treated) else self.explored)
            for stage in ("stage1", "stage2")
            if over != "across_llms" or (arm, stage) == (self.off, "stage2")
            if self.is_there(Place(MAIN, llm, arm, stage))
        ]
        found = (
            correlated(points, self.level)
            if over == "across_llms"
            else correlated_within(points, over, self.level)
        )
        return found[field]

    def _arms(self) -> list[str]:
        return [*self.plan["arms"]["primary"], *self.plan["arms"]["exploratory"]]

    def _with_image(self, llm: int, arm: str, stage: str, over: str) -> float:
        rate = self.rate(llm, arm, "images", stage=stage)
        return rate - self.rate(llm, arm, "none", stage=stage) * (over == "minus_text")


def _is_probe(arm: dict[str, Any]) -> bool:
    return arm.get("words", "scene") != "scene" or arm.get("surgery") == "text_centroid"


def _is_plain(arm: dict[str, Any]) -> bool:
    trains = arm.get("surgery", "none") == "none" and arm.get("words", "scene") == "scene"
    return trains and arm.get("stage1", {}).get("regap_loss", "off") == "off"
