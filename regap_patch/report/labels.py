"""Labels by people: a sheet to fill in, drawn where judges disagree, and the filled one read back.

The sheet shows neither a judge's verdict nor the model nor the image mode: whoever labels must not know them.
"""

from __future__ import annotations

import csv
import io
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from regap_patch.errors import ReportError
from regap_patch.records import RESPONSE_CLASSES
from regap_patch.report.json_files import write_text
from regap_patch.report.run_folder import Item, read_evaluation
from regap_patch.report.spreadsheets import armed, to_csv

COLUMNS = ("key", "question", "answer", "label", "response_class", "annotator", "note")
LABELS = ("safe", "unsafe")
_CLASSES = tuple(name for name in RESPONSE_CLASSES if name != "judge-error")
_DISAGREE = "disagree"


@dataclass(frozen=True, slots=True)
class Labelled:
    """One filled row.

    Attributes:
        item: of the run.
        label: safe or unsafe.
        response_class: "" where none was given.
        annotator: who says so.
    """

    item: Item
    label: str
    response_class: str
    annotator: str


def write_sheet(
    folder: str | Path, output_path: str | Path, *, size: int = 100, seed: int = 0
) -> dict[str, int]:
    """Draw answers of a judged run into a CSV: half where judges disagree, the rest evenly over labels.

    Args:
        folder: of the run.
        output_path: of the sheet.
        size: rows, as far as there are answers.
        seed: of the draw.

    Returns:
        Rows drawn of each stratum.

    Raises:
        ReportError: there is nothing judged to label, or the sheet exists.
    """
    path = Path(output_path)
    if path.exists():
        raise ReportError(f"{path} exists and may hold labels: give the sheet another --output_path.")
    strata = strata_of(labelled_items(folder))
    if not strata:
        raise ReportError(f"{folder} has no judged answer to a harmful request: judge it first.")
    generator = random.Random(seed)
    chosen = _draw(strata, size, generator)
    generator.shuffle(chosen)
    rows = [
        (item.answer.key, item.sample.judge_question, item.answer.text, "", "", "", "")
        for _, item in chosen
        if item.answer is not None
    ]
    write_text(path, to_csv(COLUMNS, rows))
    return {name: sum(stratum == name for stratum, _ in chosen) for name in sorted(strata)}


def labelled_items(folder: str | Path) -> list[Item]:
    """Items of a run that a person can label: harmful requests that were answered and judged."""
    return [
        item
        for item in read_evaluation(folder).items
        if item.sample.kind == "harm"
        and item.answer is not None
        and item.answer.error is None
        and item.verdicts
    ]


def strata_of(items: Sequence[Item]) -> dict[str, list[Item]]:
    """By what the judges say together: "disagree", or the one label of all."""
    strata: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        labels = {verdict.label for verdict in item.verdicts.values()}
        strata[labels.pop() if len(labels) == 1 else _DISAGREE].append(item)
    return dict(strata)


def _draw(
    strata: Mapping[str, Sequence[Item]], size: int, generator: random.Random
) -> list[tuple[str, Item]]:
    """Half of the rows from disagreement; what a stratum lacks the others give."""
    pools = {name: generator.sample(list(items), len(items)) for name, items in sorted(strata.items())}
    agreeing = [name for name in pools if name != _DISAGREE]
    turns = [_DISAGREE] * max(1, len(agreeing)) + agreeing
    chosen: list[tuple[str, Item]] = []
    while len(chosen) < size and any(pools.values()):
        for name in turns:
            if pools.get(name) and len(chosen) < size:
                chosen.append((name, pools[name].pop()))
    return chosen


def read_sheet(path: str | Path, folder: str | Path) -> list[Labelled]:
    """Read a filled sheet back; rows without a label are left out.

    Raises:
        ReportError: a column is missing, a row belongs to another run or was changed, is there twice, or has
            a label that is none.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ReportError(
            f"{file} was to be read as a labelling sheet, but that failed ({error})."
        ) from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        rows, columns = list(reader), reader.fieldnames or ()
    except csv.Error as error:
        raise ReportError(
            f"{file} is no CSV ({error}): save the sheet as CSV (UTF-8), with the columns as it had them."
        ) from error
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise ReportError(f"{file} lacks the column {missing[0]}: keep the columns as the sheet had them.")
    items = {item.answer.key: item for item in labelled_items(folder) if item.answer is not None}
    found: dict[tuple[str, str], Labelled] = {}
    for number, row in enumerate(rows, 2):
        labelled = _labelled(f"Row {number} of {file}", row, items, folder)
        if labelled is None:
            continue
        key = row["key"], labelled.annotator
        if key in found:
            raise ReportError(
                f"Row {number} of {file} labels an answer for the second time: keep one of both."
            )
        found[key] = labelled
    if not found:
        raise ReportError(f"{file} has no row with a label: write safe or unsafe into the column `label`.")
    return list(found.values())


def _labelled(
    where: str, row: Mapping[str, str | None], items: Mapping[str, Item], folder: str | Path
) -> Labelled | None:
    words = {name: (row.get(name) or "").strip() for name in ("label", "response_class", "annotator")}
    label, named = words["label"].lower(), words["response_class"].lower()
    item = items.get(row["key"] or "")
    if item is None or item.answer is None:
        raise ReportError(f"{where} has a key that no answer of {folder} has: name the run of the sheet.")
    if _lines(armed(row["answer"] or "")) != _lines(item.answer.text):
        raise ReportError(f"{where} shows another answer than the run gave: restore the column `answer`.")
    if not label:
        return None
    if label not in LABELS:
        raise ReportError(f"{where} has the label {label!r}: write {' or '.join(LABELS)}, or leave it empty.")
    if named and named not in _CLASSES:
        raise ReportError(f"{where} has the class {named!r}: write one of {', '.join(_CLASSES)}, or nothing.")
    return Labelled(item, label, named, words["annotator"])


def _lines(text: str) -> list[str]:
    """Spreadsheets change line ends, and nothing else may change."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip().split("\n")
