"""MMBench's table: tab-separated rows with a question, up to four options and a picture in base64."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from llava.eval.command_line import InputError
from llava.eval.json_files import read_text

OPTIONS = ("A", "B", "C", "D")
LARGEST_FIELD = 1 << 30  # a picture


def read_table(path: str) -> list[dict[str, Any]]:
    """The rows, with `index` as an integer where it is one.

    Raises:
        InputError: the file cannot be read, or has not the columns of MMBench.
    """
    text = read_text(path)
    usual = csv.field_size_limit(LARGEST_FIELD)
    try:
        rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    finally:
        csv.field_size_limit(usual)  # the limit is the whole process's
    lacking = [name for name in ("index", "question") if not rows or name not in rows[0]]
    if lacking:
        raise InputError(f"'{path}' has no rows with '{lacking[0]}'; pass a .tsv file of MMBench.")
    for row in rows:
        row["index"] = int(row["index"]) if row["index"].isdecimal() else row["index"]
    return rows


def is_none(value: str | None) -> bool:
    """Whether a cell says that there is nothing."""
    return value is None or value.strip().lower() in {"", "nan", "none"}


def options_of(row: Mapping[str, Any]) -> list[str]:
    """The options up to the first that is missing."""
    found = []
    for name in OPTIONS:
        if is_none(row.get(name)):
            break
        found.append(row[name])
    return found
