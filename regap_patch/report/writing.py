"""The report of one run or several: HTML, CSV and model card in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regap_patch.errors import ReportError
from regap_patch.report.card import model_card
from regap_patch.report.cells import Validation
from regap_patch.report.compare import comparison_of
from regap_patch.report.contrasts import MARGIN
from regap_patch.report.gaps import read_gaps
from regap_patch.report.json_files import write_json, write_text
from regap_patch.report.metrics import METRICS, metrics_of
from regap_patch.report.page import page
from regap_patch.report.paired_tables import all_tables
from regap_patch.report.redaction import check_redaction
from regap_patch.report.run_folder import read_evaluation
from regap_patch.report.spreadsheets import metrics_csv, samples_csv

FILES = ("report.html", "metrics.csv", "samples.csv", "model_card.md")


def write_report(
    folders: Sequence[str | Path],
    *,
    gaps: Sequence[Sequence[str | Path]] = (),
    redaction: str = "blur",
    validation: Mapping[str, Validation] | None = None,
    margin: float = MARGIN,
    output_path: str | Path | None = None,
) -> list[Path]:
    """Score the runs anew, set each against the first, and write everything.

    Args:
        folders: run folders; the first is what the others are set against.
        gaps: for each run the files of `regap gap`, `regap mir` or training; none at all by default.
        redaction: of harmful texts in the page: "blur", "remove" or "none". The CSV has them only with
            "none".
        validation: of judges, as for `score_run`.
        margin: of non-inferiority of utility.
        output_path: folder for the files; `report` in the first run's without.

    Returns:
        The files, those of `FILES` in that order. `metrics.json` of each run is written too.

    Raises:
        ReportError: no run, a folder that is none, or two of the same name.
    """
    hiding = check_redaction(redaction)
    if not folders:
        raise ReportError("A report over no run was asked for: name at least one run folder.")
    runs = [read_evaluation(folder) for folder in folders]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ReportError(
            f"The runs {', '.join(names)} were to be put into one report, but share a name: rename a folder."
        )
    metrics = [metrics_of(run, validation=validation, margin=margin) for run in runs]
    numbers = read_gaps(gaps, len(runs))
    comparisons: list[dict[str, Any]] = []
    notes: list[str] = []
    for other in runs[1:]:
        try:
            comparisons.append(comparison_of(runs[0], other, margin=margin))
        except ReportError as error:  # noqa: PERF203 (a handful of runs)
            notes.append(f"{other.name} is not set against {runs[0].name}: {error}")
    tables = all_tables(metrics, comparisons)
    folder = Path(folders[0]) / "report" if output_path is None else Path(output_path)
    texts = (
        page(runs, metrics, tables, numbers, notes, hiding),
        metrics_csv(metrics),
        samples_csv(runs, hiding),
        model_card(metrics, tables, notes),
    )
    for run, found in zip(runs, metrics, strict=True):
        write_json(run.folder / METRICS, found)
    return [write_text(folder / name, text) for name, text in zip(FILES, texts, strict=True)]
