"""From what a study has made to its tables, its analysis and its page; nothing is trained or asked again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from regap_patch.report.formats import points, points_interval
from regap_patch.report.json_files import write_json

from .arms import read_arms
from .defense_page import write_defense_page
from .outcome_table import write_outcomes, write_training
from .protocol import Protocol
from .provenance import PROVENANCE, write_provenance
from .store import RECORD, Node, as_made, check_files, is_done
from .study_page import write_study_page
from .study_run import Choice, choose, read_study
from .tabulate import outcomes_of, training_of
from .trial import analyse
from .trial_defenses import analyse_defenses

ANALYSIS = "analysis.json"


def report_study(protocol: Protocol, nodes: Sequence[Node], folder: Path) -> Path:
    """Write `outcomes.csv`, `training.csv`, `analysis.json`, `provenance.json` and the page.

    The primary part must be whole, and all of a study that is exploratory. Of other parts, what is made so
    far is reported. A study of defences has an analysis and a page of its own.

    Args:
        protocol: as its file is now.
        nodes: all pieces of its study.
        folder: of the study.

    Returns:
        Path of the page.

    Raises:
        StudyError: a primary piece is not made yet, or a piece is not what its record says.
        ReportError: the disk does not take a file.
    """
    nodes = _recorded(nodes, folder)
    needed = {node.key for node in choose(nodes, Choice(only=protocol.part))}
    there = [node for node in nodes if node.key in needed or is_done(node)]
    for made in {node.output for node in there if is_done(node)}:
        check_files(made)
    rows, training = outcomes_of(there), training_of(there)
    arms = read_arms((*protocol.arms.primary, *protocol.arms.exploratory))
    write_outcomes(folder / "outcomes.csv", rows)
    write_training(folder / "training.csv", training)
    provenance = write_provenance(protocol, nodes, folder)
    if protocol.defenses is not None:
        write_json(folder / ANALYSIS, analyse_defenses(there, protocol))
        return write_defense_page(folder)
    allowed = json.loads(provenance.read_text(encoding="utf-8"))["primary"]["allowed"]
    found = analyse(rows, training, protocol, arms)
    write_json(folder / ANALYSIS, found if allowed else _exploratory(found))
    return write_study_page(folder)


def _recorded(nodes: Sequence[Node], folder: Path) -> list[Node]:
    """The pieces where the last run of the study put them, whatever became of the code since.

    One that it has not made yet is not looked for elsewhere: in the store may be one by other code.
    """
    branches = read_study(folder)["branches"]
    found = []
    for node in nodes:
        place = folder / branches.get(node.name, node.output)
        found.append(as_made(node, place) if (place / RECORD).is_file() else replace(node, output=place))
    return found


def _changes(found: dict[str, Any], metric: str) -> list[tuple[str, str]]:
    """What each defence does to a metric in each arm and condition, against none."""
    rows = [row for row in found["against_none"] if row["metric"] == metric]
    return [
        (
            f"{row['arm']}+{row['stack']}, {row['condition']}",
            f"{metric} {points(row['estimate'])} ({points_interval((row['low'], row['high']))})",
        )
        for row in rows
    ]


def _exploratory(found: dict[str, Any]) -> dict[str, Any]:
    """The same numbers where none may be called primary."""
    labels = found["labels"]
    every = [*labels["primary"], *labels["exploratory"]]
    claim_c = found["claim_c"] | {"label": "exploratory"}
    return found | {"claim_c": claim_c, "labels": {"primary": [], "exploratory": every}}


def verdicts_of(folder: Path) -> list[tuple[str, str]]:
    """What the rules of the protocol say, as name and verdict, for the end of a command.

    Of defences, about which there is no rule, what they change.
    """
    found = json.loads((folder / ANALYSIS).read_text(encoding="utf-8"))
    if "against_none" in found:
        return _changes(found, "unsafe_rate")
    provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    rows = [("gate", found["gate"]["verdict"])]
    rows += [(f"claim A, {gap}", one["verdict"]) for gap, one in found["claim_a"]["gaps"].items()]
    rows += [(f"claim B, {part}", found["claim_b"][part]["verdict"]) for part in ("arises", "persists")]
    standing = "" if provenance["primary"]["allowed"] else " (no primary result)"
    rows.append(("claim C", found["claim_c"]["verdict"] + standing))
    rows.append(("utility", found["utility"]["verdict"]))
    return rows
