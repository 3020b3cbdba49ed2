"""One HTML file that asks nobody for anything: styles, script, figures and samples are inside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from regap_patch.report.browser import data_block
from regap_patch.report.captions import caption
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
    sections = [
        *(_figure_section(*part) for part in _figures(metrics, gaps)),
        *(_table_section(table) for table in tables),
        _samples_section(redaction),
        _provenance_section(metrics),
    ]
    links = [
        *((anchor, title) for anchor, title, _, _ in _figures(metrics, gaps)),
        *((table.name, table.title) for table in tables),
        ("samples", "Samples"),
        ("provenance", "Provenance"),
    ]
    style, script = ((_ASSETS / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8">{_policy(style, script)}',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">',
            f"<title>Evaluation: {escape(names)}</title><style>{style}</style></head><body>",
            '<a class="skip" href="#samples">Skip to the samples</a>',
            f"<header><h1>Evaluation: {escape(names)}</h1>{_notes(metrics, notes)}</header>",
            f'<nav aria-label="Sections"><ul>{"".join(map(_link, links))}</ul></nav>',
            f"<main>{''.join(sections)}</main>",
            f'<script type="application/json" id="data">{data_block(runs, redaction)}</script>',
            f"<script>{script}</script></body></html>\n",
        ]
    )


def _policy(style: str, script: str) -> str:
    """Nothing may be fetched, and no script runs but this one, whatever got into the page."""
    rules = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        f"base-uri 'none'; form-action 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _link(link: tuple[str, str]) -> str:
    return f'<li><a href="#{link[0]}">{escape(link[1])}</a></li>'


def _notes(metrics: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> str:
    found = [f"{run['name']}: {note}" for run in metrics for note in run["notes"]] + list(notes)
    if not found:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in found)
    return f'<div class="alarm" role="note"><ul>{items}</ul></div>'


def _figures(
    metrics: Sequence[Mapping[str, Any]], gaps: Sequence[Mapping[str, GapNumber]]
) -> list[tuple[str, str, str, str]]:
    """(anchor, title, figure, caption)."""
    found = []
    pooled = f"Benchmarks pooled: {pooled_in_words(metrics)}. Bars: 95 % Wilson intervals."
    drawn = trade_off(metrics)
    if drawn is not None:
        what = "One point for each run and judge; a ring marks those that no other point of the judge beats."
        words = caption(metrics, f"{what} {pooled}")
        found.append(("trade-off", "Unsafe rate and over-refusal together", drawn, words))
    sources = ", ".join(sorted({number.source for group in gaps for number in group.values()}))
    for number, (title, drawn) in enumerate(gap_figures(metrics, gaps)):
        what = f"Unsafe rate against {title}, one point for each run and judge. Gap from: {sources}."
        words = caption(metrics, f"{what} {pooled}")
        found.append((f"gap-{number}", f"Unsafe rate and {title}", drawn, words))
    return found


def _section(anchor: str, title: str, inside: str) -> str:
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>{inside}</section>'


def _figure_section(anchor: str, title: str, drawn: str, words: str) -> str:
    inside = f"<figure>{drawn}<figcaption>{escape(words)}</figcaption></figure>"
    return _section(anchor, title, inside)


def _table_section(table: Table) -> str:
    """One table, folded if it is long."""
    head = _row("th", table.head, table.left)
    body = "".join(_row("td", row, table.left) for row in table.rows)
    scroller = f'<div class="wide" tabindex="0" role="region" aria-label="{escape(table.title)}">'
    words = f"<caption>{escape(table.caption)}</caption>"
    drawn = f"{scroller}<table>{words}<thead>{head}</thead><tbody>{body}</tbody></table></div>"
    if table.folded:
        drawn = f"<details><summary>{len(table.rows)} rows</summary>{drawn}</details>"
    return _section(table.name, table.title, drawn)


def _row(tag: str, texts: Sequence[str], left: int) -> str:
    cells = (f"<{tag}{_WORDS * (number < left)}>{escape(text)}</{tag}>" for number, text in enumerate(texts))
    return f"<tr>{''.join(cells)}</tr>"


def _samples_section(redaction: Redaction) -> str:
    template = Template((_ASSETS / "samples.html").read_text(encoding="utf-8"))
    every = '<option value="">all</option>'
    filters = "".join(f'<label>{name}<select name="{name}">{every}</select></label>' for name in _FILTERS)
    blurred = "" if redaction == "blur" else " hidden"
    return template.substitute(hiding=_HIDING[redaction], filters=filters, blurred=blurred)


def _provenance_section(metrics: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for run in metrics:
        words = json.dumps(run["provenance"], indent=1, ensure_ascii=False)
        parts.append(f"<h3>{escape(run['name'])}</h3><pre>{escape(words)}</pre>")
    return _section("provenance", "Provenance", "".join(parts))
