"""Answers to MMBench as a spreadsheet for its server: the questions with a column `prediction`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.eval.command_line import InputError, run
from llava.eval.json_files import read_json_lines
from llava.eval.mmbench_table import read_table

DROPPED = {"hint", "category", "source", "image", "comment", "l2-category"}
PLACE = 6


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    add = flags.add_argument
    add("--annotation-file", required=True, help="MMBench's .tsv")
    add("--result-dir", required=True, help="reads RESULT_DIR/EXPERIMENT.jsonl")
    add("--upload-dir", required=True, help="writes UPLOAD_DIR/EXPERIMENT.xlsx")
    add("--experiment", required=True, help="name of the answers")
    return flags


def sheet(table: Sequence[dict[str, Any]], predictions: dict[Any, str]) -> list[list[Any]]:
    """Rows with the names of the columns first; `prediction` is the seventh column."""
    columns = [name for name in table[0] if name not in DROPPED]
    columns.insert(PLACE, "prediction")
    rows = []
    for row in table:
        filled = {name: None if value in ("", "nan") else value for name, value in row.items()}
        filled["prediction"] = predictions.get(row["index"])
        rows.append([filled[name] for name in columns])
    return [columns, *rows]


def main(argv: Sequence[str] | None = None) -> None:
    """Convert a file.

    Raises:
        InputError: openpyxl is not installed.
    """
    try:
        from openpyxl import Workbook
        from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    except ImportError as error:
        raise InputError("MMBench's spreadsheet needs openpyxl; run pip install 'regap[eval]'.") from error
    args = parser().parse_args(argv)
    rows = read_json_lines(Path(args.result_dir) / f"{args.experiment}.jsonl")
    # Of a question whose options went round, the round with the table's own letters.
    predictions = {
        row["question_id"]: ILLEGAL_CHARACTERS_RE.sub("", row["text"])
        for row in rows
        if not row.get("round_id")
    }
    book = Workbook()
    for number, row in enumerate(sheet(read_table(args.annotation_file), predictions), 1):
        for column, value in enumerate(row, 1):
            cell = book.active.cell(number, column, value)
            if cell.data_type == "f":  # a text that begins with =
                cell.data_type = "s"
    path = Path(args.upload_dir) / f"{args.experiment}.xlsx"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    book.save(unfinished)
    unfinished.replace(path)


if __name__ == "__main__":
    run(main)
