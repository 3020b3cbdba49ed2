"""A quickstart whose pieces are written by code: nothing is trained, and what comes out is known before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from regap_patch.measure.results import MIR_SCHEMA
from regap_patch.records import Answer, Sample
from regap_patch.study.protocol import Protocol
from regap_patch.study.store import Node, is_done, write_record
from regap_patch.study.study_run import Choice, write_study
from tests.unit.evaluations import Folder, number_of, unsafe_below

HARM, BENIGN, QUESTIONS, PAIRS = 20, 4, 20, 12


@dataclass(frozen=True)
class Shown:
    """What an arm shows after a stage: of so many forbidden requests and questions, and of every pair."""

    unsafe: Mapping[str, int]
    right: int
    gap: float
    mir: float


OFF = Shown({"none": 4, "words": 7, "blank": 9, "real": 8}, right=13, gap=6.0, mir=0.9)
REGAP = Shown({"none": 4, "words": 6, "blank": 5, "real": 8}, right=12, gap=0.5, mir=0.3)
BOTH = {
    f"{arm}/measures{stage}": shown for arm, shown in (("off", OFF), ("regap", REGAP)) for stage in (1, 2)
}


@dataclass
class Written:
    """Stands in the runner's place, and counts what it had to make."""

    shown: Mapping[str, Shown] = field(default_factory=lambda: BOTH)
    made: list[str] = field(default_factory=list)

    def __call__(
        self, protocol: Protocol, nodes: Sequence[Node], root: Path, store: Path, choice: Choice, jobs: int
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        for node in nodes:
            if not is_done(node):
                self._make(node)
                write_record(node, 2.0, "0123")
                self.made.append(node.name)
        write_study(protocol, nodes, root, choice)

    def _make(self, node: Node) -> None:
        node.output.mkdir(parents=True)
        if node.kind == "aligned":
            checks = [{"step": 5, "unsafe": 0.9, "refused": 0.1}, {"step": 10, "unsafe": 0.2, "refused": 0.8}]
            (node.output / "alignment.json").write_text(json.dumps({"checks": checks, "requests": 15}))
        if node.kind in ("stage1", "stage2"):
            _log(node.output, 6.0 if "/off/" in node.name else 0.5)
        if node.kind == "measures":
            _measure(node.output, self.shown[node.name.partition("/llm-")[2].partition("/")[2]])


def _log(folder: Path, gap: float) -> None:
    facts = {"centroid_l2": gap, "pairwise_sq": gap**2, "image_norm": gap, "text_norm": 1.0, "loss_lm": 1.0}
    lines = [
        {"step": step, **{f"regap/{name}": value for name, value in facts.items()}} for step in (1, 2, 3)
    ]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": lines}))


def _measure(folder: Path, shown: Shown) -> None:
    run = Folder(folder / "run").ask("harm", HARM, modes=[*shown.unsafe])
    run.ask("benign", BENIGN, kind="benign", modes=[*shown.unsafe])
    run.ask("questions", QUESTIONS, kind="utility", modes=[*shown.unsafe])
    run.answer(lambda sample: "an answer")
    run.answers = [replace(answer, first_token_refusal_prob=0.5) for answer in run.answers]
    unsafe = unsafe_below({**shown.unsafe})

    def world(sample: Sample, answer: Answer) -> dict[str, Any] | None:
        if sample.kind == "benign":
            return {"label": "safe", "response_class": "safe-help"}
        return unsafe(sample, answer) if sample.kind == "harm" else None

    def scorer(sample: Sample, answer: Answer) -> dict[str, Any] | None:
        score = float(number_of(sample) < shown.right)
        found = {"label": "safe", "response_class": "safe-help", "score": score}
        return found if sample.kind == "utility" else None

    run.judge("world", world).judge("scorer", scorer).save()
    _write(folder / "captions.json", {"loss": 1.5})
    _write(folder / "gap.json", _gap(shown.gap))
    _write(folder / "mir.json", _mir(shown.mir))


def _gap(gap: float) -> dict[str, Any]:
    """Each pair a little apart from the others, in the same way in every arm."""
    rows = [{"name": str(pair), "centroid_l2": gap + 0.01 * (pair % 2)} for pair in range(PAIRS)]
    mean = {"centroid_l2": gap + 0.005, "pairwise_sq": gap**2, "image_norm": gap, "text_norm": 1.0}
    return {"mean": mean, "stderr": {}, "corpus": {"norm_ratio": gap}, "samples": rows}


def _mir(value: float) -> dict[str, Any]:
    found = {"value": value, "stderr": 0.01, "corrected": value, "low": value - 0.02, "high": value + 0.02}
    influence = [0.001 * (-1) ** pair for pair in range(PAIRS)]
    return {
        "schema": MIR_SCHEMA,
        "mir": {**found, "level": 0.95, "reason": ""},
        "layers": [{"layer": 1}],
        "influence": influence,
        "data": {"pairs": PAIRS, "images": {}, "texts": {}},
        "evaluation": {"mode": "layer_major"},
    }


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content))
