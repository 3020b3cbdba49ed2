"""Read JSON and JSON lines with errors that name the place; write files that are whole or not there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llava.eval.command_line import InputError


def read_text(path: str | Path) -> str:
    """A text file in UTF-8.

    Raises:
        InputError: no such file, or none that can be read.
    """
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"'{path}' cannot be read ({reason}); pass the path of a text file.") from error


def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"'{path}' is not JSON ({error}); pass another file or repair it.") from error


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file; empty lines count for nothing.

    Raises:
        InputError: it cannot be read, or a line is not a JSON object.
    """
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict):
            raise InputError(f"Line {number} of '{path}' is not a JSON object; repair it or leave it out.")
        rows.append(row)
    return rows


def write_text(path: str | Path, text: str) -> None:
    """Write a file under another name and rename it, so that it is whole or not there; makes its folder."""
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def write_json(path: str | Path, value: Any, indent: int | None = None) -> None:
    """Write a JSON file; whole or not at all."""
    write_text(path, json.dumps(value, indent=indent))


def write_json_lines(path: str | Path, rows: Iterable[Any]) -> None:
    """Write a JSON lines file; whole or not at all."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
