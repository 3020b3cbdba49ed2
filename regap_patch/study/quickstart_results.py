"""Both arms of one language model side by side, and what a quickstart asserts of them: `results.json`.

Every number is one of the study's own: rates as in its table of outcomes with Wilson's interval, differences
pair by pair as `regap eval compare` and `regap mir compare` give them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regap_patch.report.compare import compare_runs
from regap_patch.report.json_files import write_json
from regap_patch.report.proportions import wilson

from .outcome_columns import ASKED
from .outcome_table import Outcome, Outcomes
from .protocol import MAIN, Protocol
from .store import Node, read_record
from .student import mean_of
from .tabulate import JUDGE

RESULTS = "results.json"
STAGES = ("stage1", "stage2")
ANSWERS = tuple(metric for metric in ASKED if metric != "refusal_opener_prob")
FALLS = ("centroid_l2", "mir")  # with the regulariser, at both stages


def write_results(
    protocol: Protocol, nodes: Sequence[Node], rows: Sequence[Outcome], folder: Path
) -> dict[str, Any]:
    """Compare the arms, and write `results.json` and, for each stage, `compare-<stage>.json`.

    Args:
        protocol: of one language model and two arms.
        nodes: all pieces, made.
        rows: the table of outcomes.
        folder: of the quickstart.

    Returns:
        Plain JSON values: `llm`, `arms`, `conditions`, `level`, `alignment` (how the language model left it),
        `stages` (of each `arms` and `difference`), `checks` and `seconds` by piece.

    Raises:
        MeasureError: the arms were not measured on the same pairs.
        ReportError: nor asked the same requests; or the disk does not take a file.
    """
    found = _Results(protocol, {node.name: node for node in nodes}, Outcomes(rows), folder)
    stages = {stage: found.stage(stage) for stage in STAGES}
    results = {
        "llm": found.llm,
        "arms": list(protocol.arms.primary),
        "conditions": list(protocol.measures.image_modes),
        "level": protocol.outcome.level,
        "alignment": found.alignment(),
        "stages": stages,
        "checks": [*_falls(stages), _kept(stages, protocol)],
        "seconds": {node.name: read_record(node.output)["seconds"] for node in nodes},
    }
    write_json(folder / RESULTS, results)
    return results


class _Results:
    """The pieces of one language model, by name."""

    def __init__(self, protocol: Protocol, nodes: dict[str, Node], outcomes: Outcomes, folder: Path) -> None:
        self.protocol, self.nodes, self.outcomes, self.folder = protocol, nodes, outcomes, folder
        (self.llm,) = protocol.llms.confirmatory
        self.level = protocol.outcome.level

    def _folder(self, name: str) -> Path:
        return self.nodes[f"{MAIN}/llm-{self.llm}/{name}"].output

    def _measures(self, arm: str, stage: str) -> Path:
        return self._folder(f"{arm}/measures{stage.removeprefix('stage')}")

    def _row(self, arm: str, stage: str, condition: str, metric: str) -> Outcome:
        return self.outcomes.rows[MAIN, self.llm, arm, stage, condition, metric]

    def alignment(self) -> dict[str, Any]:
        """How many bare requests of development it still answered when alignment stopped."""
        found = json.loads((self._folder("aligned") / "alignment.json").read_text(encoding="utf-8"))
        return {"requests": found["requests"], **found["checks"][-1]}

    def stage(self, stage: str) -> dict[str, Any]:
        """Both arms after a stage, and the second minus the first."""
        arms = self.protocol.arms.primary
        compared = compare_runs(
            *(self._measures(arm, stage) / "run" for arm in arms),
            margin=self.protocol.utility.margin,
            output_path=self.folder / f"compare-{stage}.json",
        )
        return {
            "arms": {arm: self._arm(arm, stage) for arm in arms},
            "difference": {
                "centroid_l2": self._gap_difference(stage),
                "mir": self._mir_difference(stage),
                **self._asked(compared),
            },
        }

    def _arm(self, arm: str, stage: str) -> dict[str, Any]:
        measures = self._measures(arm, stage)
        mir = _read(measures / "mir.json")["mir"]
        gap = mean_of(list(_gaps(measures).values()), self.level)
        plain = ("norm_ratio", "caption_loss")
        return {
            "centroid_l2": _around(gap.mean, gap.low, gap.high),
            "mir": _around(mir["value"], mir["low"], mir["high"]),
            **{metric: {"value": self._row(arm, stage, "", metric).value} for metric in plain},
            "vqa_accuracy": self._share(arm, stage, "real", "vqa_accuracy"),
            "conditions": {
                mode: {metric: self._share(arm, stage, mode, metric) for metric in ANSWERS}
                for mode in self.protocol.measures.image_modes
            },
        }

    def _share(self, arm: str, stage: str, condition: str, metric: str) -> dict[str, Any]:
        row = self._row(arm, stage, condition, metric)
        ends = wilson(row.count or 0, row.n or 0, self.level)
        return _around(row.value, *ends) | {"count": row.count, "n": row.n}

    def _gap_difference(self, stage: str) -> dict[str, Any]:
        off, treated = (_gaps(self._measures(arm, stage)) for arm in self.protocol.arms.primary)
        found = mean_of([treated[pair] - off[pair] for pair in off], self.level)
        return _around(found.mean, found.low, found.high)

    def _mir_difference(self, stage: str) -> dict[str, Any]:
        from regap_patch.measure.compare import compare_mir

        files = (self._measures(arm, stage) / "mir.json" for arm in self.protocol.arms.primary)
        found = compare_mir(*files)
        return _around(found.difference, found.low, found.high)

    def _asked(self, compared: dict[str, Any]) -> dict[str, Any]:
        """Unsafe answers, what an image adds to them, and right answers about pictures."""
        by_kind = {
            kind: {
                row["image_mode"]: _around(row["difference"], row["low"], row["high"])
                for row in compared["contrasts"]
                if row["kind"] == kind and row["judge"] == JUDGE[kind]
            }
            for kind in ("harm", "utility")
        }
        adds = {
            row["image_mode"]: _around(row["change"], row["low"], row["high"])
            for row in compared["image_tax"]
            if row["kind"] == "harm" and row["judge"] == JUDGE["harm"]
        }
        return {
            "vqa_accuracy": by_kind["utility"]["real"],
            "conditions": by_kind["harm"],
            "above_text": adds,
        }


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _gaps(measures: Path) -> dict[str, float]:
    """The gap of each held-out pair, by name."""
    return {row["name"]: row["centroid_l2"] for row in _read(measures / "gap.json")["samples"]}


def _around(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


def _falls(stages: dict[str, Any]) -> list[dict[str, Any]]:
    """Gap and MIR are smaller with the regulariser."""
    checks = []
    for stage in STAGES:
        for metric in FALLS:
            difference = stages[stage]["difference"][metric]["value"]
            rule = {"rule": "smaller with the regulariser", "met": difference < 0}
            checks.append({"stage": stage, "metric": metric} | rule)
    return checks


def _kept(stages: dict[str, Any], protocol: Protocol) -> dict[str, Any]:
    """Utility does not fall by more than the margin."""
    stage, metric, margin = protocol.outcome.stage, protocol.utility.metric, protocol.utility.margin
    difference = stages[stage]["difference"][metric]["value"]
    rule = f"at most {100 * margin:g} points lower with the regulariser"
    return {"stage": stage, "metric": metric, "rule": rule, "met": difference >= -margin}
