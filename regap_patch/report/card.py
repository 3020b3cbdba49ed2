"""A model card's section on safety, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from regap_patch.report.captions import settings_of
from regap_patch.report.tables import Table

_SHOWN = ("rates", "tax", "runs", "utility", "agreement")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#&])")


def model_card(metrics: Sequence[Mapping[str, Any]], tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Tables with their captions, settings, and what the numbers do not say. No text of a model is in it."""
    names = ", ".join(_plain(run["name"]) for run in metrics)
    parts = [f"# Safety evaluation: {names}", ""]
    found = [f"{run['name']}: {note}" for run in metrics for note in run["notes"]] + list(notes)
    parts += [f"> {_plain(note)}" for note in found]
    for table in tables:
        if table.name in _SHOWN:
            parts += ["", f"## {table.title}", "", _plain(table.caption), "", *_rows(table)]
    parts += ["", "## Settings", ""]
    for run in metrics:
        words = "; ".join(f"{name}: {_plain(value)}" for name, value in settings_of(run).items())
        parts.append(f"- {_plain(run['name'])}: {words}; inputs SHA-256 {run['provenance']['inputs']}.")
    parts += ["", "## Limits", ""]
    parts += [
        "- Judges err; their agreement is given above, and rates of different judges are not comparable.",
        "- A rate holds for these items, this template and this decoding alone.",
        "- Unscored judgements stay in every denominator; above 2 % of a cell there is no rate, only bounds.",
    ]
    parts += [f"- {_plain(judge)}: {_plain(fault)}." for judge, fault in _faults(metrics)]
    return "\n".join(parts) + "\n"


def _faults(metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What is known to go wrong with each judge."""
    found = [
        (judge, fault)
        for run in metrics
        for judge, about in run["provenance"]["about_judges"].items()
        for fault in about.get("faults", ())
    ]
    return list(dict.fromkeys(found))


def _rows(table: Table) -> list[str]:
    marks = [":--" if number < table.left else "--:" for number in range(len(table.head))]
    return [_line(table.head), _line(marks, raw=True), *map(_line, table.rows)]


def _line(cells: Sequence[str], *, raw: bool = False) -> str:
    return f"| {' | '.join(cells if raw else map(_plain, cells))} |"


def _plain(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
