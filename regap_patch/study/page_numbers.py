"""Every numeral of the study's page says where it stands: in which file of its folder, under which key.

A source is `file#key`. In a JSON file the key is a pointer (`analysis.json#/claim_c/estimate`). In a table
it is the row's key and, where another column than the usual one is meant, the column's name
(`outcomes.csv#main/llm-1/regap/stage2/blank/unsafe_rate`, `outcomes.csv#main/.../unsafe_rate/n`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from regap_patch.errors import ReportError
from regap_patch.report.formats import NONE, p_value, percent, points

EMPTY = "-"  # stands in a key for a column without a value


class Keys(NamedTuple):
    """How the rows of a table are named.

    Attributes:
        columns: their values in this order, joined by "/", are a row's key; an `llm` is written `llm-SEED`.
        usual: the column that a key without one means; "" if it must be named.
    """

    columns: tuple[str, ...]
    usual: str = ""


TABLES = {
    "outcomes.csv": Keys(("variant", "llm", "arm", "stage", "condition", "metric"), "value"),
    "training.csv": Keys(("variant", "llm", "arm", "stage", "step")),
    "means.csv": Keys(("variant", "arm", "stage", "condition", "metric"), "mean"),
}


def key_of(name: str, row: Mapping[str, Any]) -> str:
    """The key of a row of a table of `TABLES`."""
    parts = []
    for column in TABLES[name].columns:
        value = str(row[column])
        parts.append(f"llm-{value}" if column == "llm" else value or EMPTY)
    return "/".join(parts)


def _number(value: float) -> str:
    """Three significant digits, and never a power of ten."""
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:#.3g}".rstrip(".")
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.5f}"


def _seconds(value: float) -> str:
    """1.5 h, 12 min, 3.2 s."""
    if value >= 3600:
        return f"{value / 3600:.1f} h"
    return f"{value / 60:.0f} min" if value >= 60 else f"{value:.1f} s"


STYLES: dict[str, Callable[[Any], str]] = {
    "share": percent,
    "rate": lambda value: f"{100 * value:.1f}",
    "points": points,
    "level": lambda value: f"{100 * value:g} %",
    "number": _number,
    "signed": lambda value: f"{value:+.2f}",
    "p": p_value,
    "count": lambda value: f"{value:.0f}",
    "seconds": _seconds,
    "text": str,
    "short": lambda value: str(value)[:12],
    "list": lambda value: ", ".join(map(str, value)),
}


def written(value: Any, style: str) -> str:
    """How the page writes a value.

    Args:
        value: as it stands in its file; None, or "" in a table, for a value that there is not.
        style: a key of `STYLES`.
    """
    if value is None or value == "":
        return NONE
    if style not in ("text", "short", "list"):
        value = float(value)
    return STYLES[style](value)


@dataclass(frozen=True, slots=True)
class Numeral:
    """A value with its source: `text` is what `written` makes of `value` in `style`."""

    source: str
    style: str
    value: Any
    text: str

    @property
    def attributes(self) -> dict[str, str]:
        """Of the element that holds it; nothing where there is no value."""
        return {} if self.text == NONE else {"data-source": self.source, "data-as": self.style}


Piece = str | Numeral
Words = Sequence[Piece]


class Numbers:
    """The files of a study's folder, each read once."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files: dict[str, Any] = {}

    def __call__(self, source: str, style: str = "number") -> Numeral:
        """The numeral of a source.

        Raises:
            ReportError: there is no such value.
        """
        value = self.value(source)
        return Numeral(source, style, value, written(value, style))

    def value(self, source: str) -> Any:
        """What stands there.

        Raises:
            ReportError: nothing does.
        """
        name, _, key = source.partition("#")
        try:
            return self._cell(name, key) if name in TABLES else _pointed(self._json(name), key)
        except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
            raise ReportError(
                f"The study's page was to show {source}, but {self.folder} has no such value "
                f"({type(error).__name__}: {error}): analyse the study again."
            ) from error

    def has(self, source: str) -> bool:
        """Whether there is a value."""
        try:
            return self.value(source) not in (None, "")
        except ReportError:
            return False

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of a table of `TABLES`, as text."""
        return list(self._table(name).values())

    @cached_property
    def analysis(self) -> dict[str, Any]:
        """Content of analysis.json."""
        found: dict[str, Any] = self._json("analysis.json")
        return found

    @cached_property
    def study(self) -> dict[str, Any]:
        """Content of study.json."""
        found: dict[str, Any] = self._json("study.json")
        return found

    def _json(self, name: str) -> Any:
        if name not in self._files:
            self._files[name] = json.loads((self.folder / name).read_text(encoding="utf-8"))
        return self._files[name]

    def _table(self, name: str) -> dict[str, dict[str, str]]:
        if name not in self._files:
            with (self.folder / name).open(encoding="utf-8", newline="") as file:
                self._files[name] = {key_of(name, row): row for row in csv.DictReader(file)}
        found: dict[str, dict[str, str]] = self._files[name]
        return found

    def _cell(self, name: str, key: str) -> str:
        table, keys = self._table(name), TABLES[name]
        if keys.usual and key in table:
            return table[key][keys.usual]
        row, _, column = key.rpartition("/")
        return table[row][column]


def _pointed(content: Any, pointer: str) -> Any:
    """Where a JSON pointer (RFC 6901) leads."""
    for part in pointer.removeprefix("/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        content = content[int(name)] if isinstance(content, list) else content[name]
    return content


def pointer(*parts: str | int) -> str:
    """A JSON pointer to the value under these names."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)
