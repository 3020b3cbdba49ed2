"""Numbers and samples as CSV; a text that a spreadsheet would take for a formula is disarmed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from regap_patch.report.browser import rows_of
from regap_patch.report.outcomes import CLASSES
from regap_patch.report.redaction import Redaction
from regap_patch.report.run_folder import Evaluation

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_CELL = (
    *(
        "benchmark",
        "kind",
        "measure",
        "scenario",
        "image_mode",
        "defense",
        "judge",
        "n",
        "k",
        "rate",
        "low",
        "high",
    ),
    *("level", "method", "unknown", "incomplete", "truncated", "truncated_input", "clusters", "batch_parity"),
)


def disarmed(text: str) -> str:
    """With an apostrophe before what would begin a formula, or before an apostrophe that was there."""
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def armed(text: str) -> str:
    """The text before `disarmed`."""
    return text[1:] if text.startswith("'") and text[1:].startswith((*_FORMULA, "'")) else text


def to_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """One line a row, with the ends of RFC 4180; texts are disarmed.

    Python's writer quotes the characters of its line end alone, and a bare carriage return begins a row too.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(head)
    writer.writerows([disarmed(value) if isinstance(value, str) else value for value in row] for row in rows)
    return file.getvalue()


def metrics_csv(runs: Sequence[Mapping[str, Any]]) -> str:
    """Every cell of every run, as numbers."""
    head = ("run", *_CELL, "bound_low", "bound_high", "macro", *(f"share_{name}" for name in CLASSES))
    rows = [
        (
            metrics["name"],
            *(cell[name] for name in _CELL),
            *cell["bounds"],
            None if cell["macro"] is None else cell["macro"]["rate"],
            *(cell["classes"][name] / cell["n"] for name in CLASSES),
        )
        for metrics in runs
        for cell in metrics["cells"]
    ]
    return to_csv(head, rows)


def samples_csv(runs: Sequence[Evaluation], redaction: Redaction) -> str:
    """Every item with what each judge says of it. A table cannot blur, so harmful texts are taken out."""
    hiding: Redaction = "none" if redaction == "none" else "remove"
    head = ("run", "uid", "benchmark", "scenario", "kind", "mode", "prompt", "answer", "finish", "verdicts")
    rows = [
        (
            *(row[name] for name in head[:-1]),
            "; ".join(f"{found['judge']}={found['label']}/{found['class']}" for found in row["verdicts"]),
        )
        for run in runs
        for row in rows_of(run, hiding)
    ]
    return to_csv(head, rows)
