"""A file of answers that grows, and that the same command takes up again where it was cut off."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from llava.eval.command_line import InputError
from llava.eval.json_files import read_json, write_json

Key = Mapping[str, Any]


def record_path(answers_file: str | Path) -> Path:
    """The file beside `answers.jsonl` that says how the answers were made: `answers.run.json`."""
    return Path(answers_file).expanduser().with_suffix(".run.json")


class AnswersFile:
    """JSON lines, one a question and in the questions' order, flushed at every `append`.

    A last line that was torn off is dropped. Beside it lies a record of the settings, which must be the same
    when the file is taken up again, and of every start.

    Args:
        path: file to write; its folder is made.
        keys: of all questions: the fields of a row that tell questions apart.
        settings: what the answers depend on; JSON.
        start: what is worth knowing about this start; JSON.
        overwrite: begin anew, whatever is there.
        multiple: take up a number of answers that is a multiple of this, unless all are there.

    Raises:
        InputError: the file is of other questions or settings, or of another program.
    """

    def __init__(
        self,
        path: str | Path,
        keys: Sequence[Key],
        settings: Mapping[str, Any],
        start: Mapping[str, Any],
        *,
        overwrite: bool = False,
        multiple: int = 1,
    ) -> None:
        self.path = Path(path).expanduser()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        record = record_path(self.path)
        if overwrite:
            self.path.unlink(missing_ok=True)
            record.unlink(missing_ok=True)
        starts = self._earlier_starts(record, settings)
        self.done = self._keep_whole_rows(keys, multiple)
        write_json(record, {"settings": settings, "starts": [*starts, start]}, indent=1)

    def __enter__(self) -> AnswersFile:
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows, through to the operating system."""
        self._file.write("".join(json.dumps(row) + "\n" for row in rows))
        self._file.flush()
        self.done += len(rows)

    def _earlier_starts(self, record: Path, settings: Mapping[str, Any]) -> list[Any]:
        if not self.path.exists() or not self.path.stat().st_size:
            return []
        if not record.exists():
            raise InputError(
                f"'{self.path}' exists without '{record.name}', which would say how it was made; pass "
                "another --answers-file, or --overwrite to write it anew."
            )
        found = read_json(record)
        asked = json.loads(json.dumps(settings))  # tuples become lists, as in the file
        was = found["settings"]
        other = sorted(name for name in asked.keys() | was.keys() if asked.get(name) != was.get(name))
        if other:
            raise InputError(
                f"'{self.path}' holds answers with another {other[0]} ({_short(was.get(other[0]))}, now "
                f"{_short(asked.get(other[0]))}); pass another --answers-file, or --overwrite to begin anew."
            )
        return found["starts"]

    def _keep_whole_rows(self, keys: Sequence[Key], multiple: int) -> int:
        """How many answers are there; the file is cut behind them."""
        if not self.path.exists():
            return 0
        lines = self.path.read_bytes().splitlines(keepends=True)
        if lines and not _is_whole(lines[-1]):
            lines.pop()
        if len(lines) > len(keys):
            raise InputError(
                f"'{self.path}' holds {len(lines)} answers to {len(keys)} questions; pass another "
                "--answers-file, or --overwrite to write it anew."
            )
        for number, (line, key) in enumerate(zip(lines, keys, strict=False), 1):
            row = json.loads(line) if _is_whole(line) else {}
            if any(row.get(name) != value for name, value in key.items()):
                raise InputError(
                    f"Line {number} of '{self.path}' does not answer question {dict(key)}; pass another "
                    "--answers-file, or --overwrite to write it anew."
                )
        kept = len(lines) if len(lines) == len(keys) else len(lines) // multiple * multiple
        os.truncate(self.path, sum(map(len, lines[:kept])))
        return kept


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _short(value: object, longest: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= longest else text[:longest] + "..."
