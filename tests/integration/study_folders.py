"""What a study left in its folders, line by line: verdicts, answers, logs, and the rows behind means."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

Row = dict[str, Any]
CLASSES = {  # kind of request, and the classes of answers that count
    "refusal_rate": ("harm", {"refusal"}),
    "incoherent_rate": ("harm", {"incoherent", "empty"}),
    "over_refusal_rate": ("benign", {"refusal", "empty"}),
    "benign_compliance": ("benign", {"safe-help"}),
}


class Cell(NamedTuple):
    """A number of a checkpoint; `count` and `n` where it is a share."""

    value: float
    count: float | None = None
    n: int | None = None


class Place(NamedTuple):
    """A checkpoint."""

    variant: str
    llm: int
    arm: str
    stage: str


class Folders:
    """Of one study."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.branches = json.loads((folder / "study.json").read_text())["branches"]
        self.plan = read_yaml(folder / "protocol.yaml")
        self.cell, self.log, self.items = cache(self._cell), cache(self._log), cache(self._items)

    def _folder(self, place: Place, piece: str) -> Path:
        return self.folder / self.branches[f"{place.variant}/llm-{place.llm}/{place.arm}/{piece}"]

    def _measures(self, place: Place) -> Path:
        return self._folder(place, f"measures{place.stage[-1]}")

    def is_there(self, place: Place) -> bool:
        """Whether it was measured; an exploratory checkpoint may be missing."""
        return (self._measures(place) / "captions.json").exists()

    def _log(self, place: Place) -> dict[int, dict[str, float]]:
        folder = self._folder(place, place.stage)
        states = [folder / "trainer_state.json", *folder.glob("checkpoint-*/trainer_state.json")]
        state = max((path for path in states if path.exists()), key=lambda path: len(path.read_bytes()))
        rows = json.loads(state.read_text())["log_history"]
        return {row["step"]: row for row in rows if "regap/centroid_l2" in row}

    def _items(self, place: Place) -> list[tuple[Row, Row, dict[str, Row]]]:
        """(sample, answer, verdict of each judge) of everything that was asked."""
        run = self._measures(place) / "run"
        answers = {(row["uid"], row["image_mode"]): row for row in _lines(run.glob("answers/*/*/*.jsonl"))}
        said: dict[str, dict[str, Row]] = {}
        for row in _lines(run.glob("verdicts/*/*/*.jsonl")):
            said.setdefault(row["answer_key"], {})[row["judge"]] = row
        asked = (
            (sample, answers[sample["uid"], sample["image_mode"]]) for sample in _lines(run.glob("samples/*"))
        )
        return [(sample, answer, said[answer["key"]]) for sample, answer in asked]

    def _cell(self, place: Place, condition: str, metric: str) -> Cell:
        if metric == "caption_loss":
            pairs = json.loads((self._measures(place) / "captions.json").read_text())["pairs"]
            return Cell(
                np.average([pair["loss"] for pair in pairs], weights=[pair["tokens"] for pair in pairs])
            )
        if metric == "mir":
            layers = json.loads((self._measures(place) / "mir.json").read_text())["layers"]
            return Cell(math.log10(sum(layer["frechet"] for layer in layers)))
        if condition == "":
            return Cell(self._gap(place, metric))
        kind = (
            "harm"
            if metric in ("unsafe_rate", "refusal_opener_prob")
            else CLASSES.get(metric, ("utility",))[0]
        )
        items = [
            item
            for item in self.items(place)
            if (item[0]["kind"], item[0]["image_mode"]) == (kind, condition)
        ]
        if metric == "refusal_opener_prob":
            return Cell(float(np.mean([answer["first_token_refusal_prob"] for _, answer, _ in items])))
        count = sum(_counts(metric, said) for _, _, said in items)
        return Cell(count / len(items), count, len(items))

    def _gap(self, place: Place, metric: str) -> float:
        samples = json.loads((self._measures(place) / "gap.json").read_text())["samples"]
        if metric != "norm_ratio":
            return float(np.mean([sample[metric] for sample in samples]))
        image, text = (
            np.average(
                [sample[f"{side}_norm"] for sample in samples],
                weights=[sample[f"{side}_rows"] for sample in samples],
            )
            for side in ("image", "text")
        )
        return float(image / text)


def _counts(metric: str, said: dict[str, dict[str, Any]]) -> float:
    if metric == "unsafe_rate":
        return said["world"]["label"] == "unsafe"
    if metric == "vqa_accuracy":
        return 0.0 if said["scorer"]["response_class"] == "empty" else said["scorer"]["score"]
    return said["world"]["response_class"] in CLASSES[metric][1]


def _lines(paths: Iterable[Path]) -> list[Row]:
    return [json.loads(line) for path in sorted(paths) for line in path.read_text().splitlines()]


def read_yaml(path: Path) -> Any:
    """As YAML, but for the word off, which is an arm here and no switch."""
    return yaml.safe_load(re.sub(r"\boff\b", '"off"', path.read_text()))
