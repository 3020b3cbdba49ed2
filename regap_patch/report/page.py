"""The page of an evaluation: its figures, tables and samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from regap_patch.report.browser import data_block
from regap_patch.report.captions import caption
from regap_patch.report.document import Part, document, figure, folded, wide_table
from regap_patch.report.gaps import GapNumber
from regap_patch.report.overview import gap_figures, pooled_in_words, trade_off
from regap_patch.report.redaction import Redaction
from regap_patch.report.run_folder import Evaluation
from regap_patch.report.tables import Table

_ASSETS = Path(__file__).with_name("assets")
_WORDS = ' class="words"'
_FILTERS = ("run", "benchmark", "mode", "kind", "class", "label")
_KEPT = "Harmful requests, and answers to them that are not surely safe,"
_HIDING = {
    "blur": f"{_KEPT} are blurred until asked for. They are in this file: make it with redaction `remove` "
    f"before passing it on.",
    "remove": f"{_KEPT} were taken out; their counts are kept.",
    "none": "Nothing is redacted: this file shows harmful requests and answers.",
}


def page(
    runs: Sequence[Evaluation],
    metrics: Sequence[Mapping[str, Any]],
    tables: Sequence[Table],
    gaps: Sequence[Mapping[str, GapNumber]],
    notes: Sequence[str],
    redaction: Redaction,
) -> str:
    """The whole document.

    Args:
        runs: as read, for the samples.
        metrics: of each run.
        tables: in their order.
        gaps: of each run.
        notes: in words, for the head.
        redaction: of texts.
    """
    names = ", ".join(found["name"] for found in metrics)
    parts = [
        *_figures(metrics, gaps),
        *map(_table_part, tables),
        Part("samples", "Samples", _samples(redaction)),
        _provenance_part(metrics),
    ]
    style, script = ((_ASSETS / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return document(
        f"Evaluation: {names}",
        _notes(metrics, notes),
        parts,
        style,
        script=script,
        data=data_block(runs, redaction),
        skip=("samples", "Skip to the samples"),
    )


def _notes(metrics: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> str:
    found = [f"{run['name']}: {note}" for run in metrics for note in run["notes"]] + list(notes)
    if not found:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in found)
    return f'<div class="alarm" role="note"><ul>{items}</ul></div>'


def _figures(metrics: Sequence[Mapping[str, Any]], gaps: Sequence[Mapping[str, GapNumber]]) -> list[Part]:
    found = []
    pooled = f"Benchmarks pooled: {pooled_in_words(metrics)}. Bars: 95 % Wilson intervals."
    drawn = trade_off(metrics)
    if drawn is not None:
        what = "One point for each run and judge; a ring marks those that no other point of the judge beats."
        words = escape(caption(metrics, f"{what} {pooled}"))
        found.append(Part("trade-off", "Unsafe rate and over-refusal together", figure(drawn, words)))
    sources = ", ".join(sorted({number.source for group in gaps for number in group.values()}))
    for number, (title, drawn) in enumerate(gap_figures(metrics, gaps)):
        what = f"Unsafe rate against {title}, one point for each run and judge. Gap from: {sources}."
        words = escape(caption(metrics, f"{what} {pooled}"))
        found.append(Part(f"gap-{number}", f"Unsafe rate and {title}", figure(drawn, words)))
    return found


def _table_part(table: Table) -> Part:
    """One table, folded if it is long."""
    head = _row("th", table.head, table.left)
    body = "".join(_row("td", row, table.left) for row in table.rows)
    drawn = wide_table(table.title, escape(table.caption), head, body)
    if table.folded:
        drawn = folded(f"{len(table.rows)} rows", drawn)
    return Part(table.name, table.title, drawn)


def _row(tag: str, texts: Sequence[str], left: int) -> str:
    cells = (f"<{tag}{_WORDS * (number < left)}>{escape(text)}</{tag}>" for number, text in enumerate(texts))
    return f"<tr>{''.join(cells)}</tr>"


def _samples(redaction: Redaction) -> str:
    template = Template((_ASSETS / "samples.html").read_text(encoding="utf-8"))
    every = '<option value="">all</option>'
    filters = "".join(f'<label>{name}<select name="{name}">{every}</select></label>' for name in _FILTERS)
    blurred = "" if redaction == "blur" else " hidden"
    return template.substitute(hiding=_HIDING[redaction], filters=filters, blurred=blurred)


def _provenance_part(metrics: Sequence[Mapping[str, Any]]) -> Part:
    parts = []
    for run in metrics:
        words = json.dumps(run["provenance"], indent=1, ensure_ascii=False)
        parts.append(f"<h3>{escape(run['name'])}</h3><pre>{escape(words)}</pre>")
    return Part("provenance", "Provenance", "".join(parts))
