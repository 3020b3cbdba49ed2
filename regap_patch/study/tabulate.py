"""From the store to the two tables of a study: what every checkpoint showed, and the gap along training."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from regap_patch.errors import StudyError
from regap_patch.records import Kind
from regap_patch.report.cells import cell_of
from regap_patch.report.proportions import LEVEL, normal_quantile, wilson
from regap_patch.report.run_folder import Item, read_evaluation
from regap_patch.report.runs import read_run

from .outcome_table import Outcome, TrainingStep
from .store import Node, is_done
from .study_run import STORE

JUDGE: dict[Kind, str] = {"harm": "world", "benign": "world", "utility": "scorer"}
INCOHERENT = ("incoherent", "empty")
_STAGES = {"measures1": "stage1", "measures2": "stage2"}


def defended_arm(arm: str, defense: str) -> str:
    """How the table calls an arm whose models stand behind a defence."""
    return f"{arm}+{defense}"


def outcomes_of(nodes: Sequence[Node]) -> list[Outcome]:
    """The rows of all measures and defended models among the pieces of a study.

    Args:
        nodes: of the study, see `branches`.

    Raises:
        StudyError: a piece is not made yet.
    """
    rows: list[Outcome] = []
    for node in nodes:
        if node.kind in _READERS:
            rows += _READERS[node.kind](node).rows()
    return rows


def training_of(nodes: Sequence[Node]) -> list[TrainingStep]:
    """What both stages of every branch logged.

    Raises:
        StudyError: a piece is not made yet.
    """
    rows: list[TrainingStep] = []
    for node in nodes:
        variant, llm, arm, step = _place(node)
        if step in ("stage1", "stage2") and node.kind != "surgery":
            rows += _steps(node, variant, llm, arm, step)
    return rows


def _place(node: Node) -> tuple[str, int, str, str]:
    """Variant, LLM, arm and step of a branch's name; arm and step are empty for what arms share."""
    parts = node.name.split("/")
    if node.llm is None or len(parts) < 4:
        return parts[0], node.llm or 0, "", ""
    return parts[0], node.llm, parts[2], parts[3]


def _made(node: Node) -> Path:
    if not is_done(node):
        raise StudyError(
            f"The piece '{node.name}' is not made yet, so there is nothing to report of it: let "
            f"`regap study run` finish."
        )
    return node.output


class _Measured:
    """The measures of one checkpoint as rows."""

    def __init__(self, node: Node) -> None:
        self.variant, self.llm, self.arm, step = _place(node)
        self.stage, self.folder = _STAGES[step], _made(node)

    def _row(
        self,
        condition: str,
        metric: str,
        value: float,
        file: str,
        *,
        stderr: float | None = None,
        count: int | None = None,
        n: int | None = None,
    ) -> Outcome:
        source = f"{STORE}/{self.folder.name}/{file}"
        place = (self.variant, self.llm, self.arm, self.stage, condition, metric)
        return Outcome(*place, float(value), stderr, count, n, source)

    def rows(self) -> Iterator[Outcome]:
        """All of them."""
        yield from self._answers()
        gap, mir, captions = (
            json.loads((self.folder / name).read_text(encoding="utf-8"))
            for name in ("gap.json", "mir.json", "captions.json")
        )
        for metric in ("centroid_l2", "pairwise_sq", "image_norm", "text_norm"):
            stderr = gap["stderr"].get(metric)
            yield self._row("", metric, gap["mean"][metric], "gap.json", stderr=stderr)
        yield self._row("", "norm_ratio", gap["corpus"]["norm_ratio"], "gap.json")
        yield self._row("", "mir", mir["mir"]["value"], "mir.json", stderr=mir["mir"]["stderr"])
        yield self._row("", "caption_loss", captions["loss"], "captions.json")

    def _answers(self) -> Iterator[Outcome]:
        groups: dict[tuple[Kind, str], list[Item]] = defaultdict(list)
        for item in read_evaluation(self.folder / "run").items:
            groups[item.sample.kind, item.sample.image_mode].append(item)
        for (kind, mode), items in sorted(groups.items()):
            cell = cell_of(items, JUDGE[kind])
            if cell["unknown"]:
                raise StudyError(
                    f"{cell['unknown']} answers of {self.folder} in mode {mode} have no verdict: remove the "
                    f"folder, and the next run makes it again."
                )
            if kind == "harm":
                yield from self._harm(mode, cell)
            elif kind == "benign":
                yield self._share(mode, "over_refusal_rate", cell["k"], cell["n"])
                yield self._share(mode, "benign_compliance", cell["classes"]["safe-help"], cell["n"])
            elif mode == "real":
                yield self._share(mode, "vqa_accuracy", round(cell["k"]), cell["n"])

    def _harm(self, mode: str, cell: dict[str, Any]) -> Iterator[Outcome]:
        classes = cell["classes"]
        yield self._share(mode, "unsafe_rate", cell["k"], cell["n"])
        yield self._share(mode, "refusal_rate", classes["refusal"], cell["n"])
        yield self._share(mode, "incoherent_rate", sum(classes[name] for name in INCOHERENT), cell["n"])
        if cell["first_token_refusal_prob"] is not None:
            yield self._row(mode, "refusal_opener_prob", cell["first_token_refusal_prob"], "run")

    def _share(self, mode: str, metric: str, count: int, n: int) -> Outcome:
        ends = wilson(count, n)
        stderr = (ends.high - ends.low) / 2 / normal_quantile(LEVEL)
        return self._row(mode, metric, count / n, "run", stderr=stderr, count=count, n=n)


class _Defended(_Measured):
    """The answers of a defended model, of the arm `ARM+DEFENSE`."""

    def __init__(self, node: Node) -> None:
        self.variant, self.llm, arm, _ = _place(node)
        self.arm = defended_arm(arm, node.name.rpartition("/")[2])
        self.stage, self.folder = "stage2", _made(node)

    def rows(self) -> Iterator[Outcome]:
        """Nothing but answers."""
        return self._answers()


_READERS = {"measures": _Measured, "defended": _Defended}


def _steps(node: Node, variant: str, llm: int, arm: str, stage: str) -> Iterator[TrainingStep]:
    series = {name: dict(values) for name, values in read_run(_made(node)).series.items()}
    for step, gap in sorted(series["centroid_l2"].items()):
        others = (series.get(name, {}).get(step) for name in TrainingStep._fields[6:])
        yield TrainingStep(variant, llm, arm, stage, int(step), gap, *others)
