"""Pages of a study read back: every text with where it stands, and what its source says."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

VOID = {"meta", "link", "br", "line", "circle", "polygon", "polyline", "path"}
KEYS = {  # columns of a key, and the one that a key alone means
    "outcomes.csv": (("variant", "llm", "arm", "stage", "condition", "metric"), "value"),
    "means.csv": (("variant", "arm", "stage", "condition", "metric"), "mean"),
    "training.csv": (("variant", "llm", "arm", "stage", "step"), ""),
}


class Shown(NamedTuple):
    """A text of the page: the elements that it stands in, from the outside, and the nearest source."""

    text: str
    tags: tuple[str, ...]
    kinds: frozenset[str]
    source: str | None
    style: str | None


class Reader(HTMLParser):
    """Every text of a page with where it stands; knows nothing of how pages are written."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.stack: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[Shown] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if not data.strip():
            return
        attributes = self.stack[-1][1]
        kinds = frozenset(word for _, found in self.stack for word in str(found.get("class", "")).split())
        tags = tuple(name for name, _ in self.stack)
        self.shown.append(Shown(data, tags, kinds, attributes.get("data-source"), attributes.get("data-as")))


def loose_digits(page: str) -> list[str]:
    """Texts of the body with a digit and without a source of their own; ticks of axes alone may have one."""
    return [
        shown.text
        for shown in Reader(page).shown
        if re.search(r"\d", shown.text)
        and shown.source is None
        and "body" in shown.tags
        and "tick" not in shown.kinds
    ]


def sources(page: str) -> Iterator[Shown]:
    return (shown for shown in Reader(page).shown if shown.source is not None)


class Folder:
    """Looks a source up in the files, by the rule that the documentation gives."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Any] = {}
        self.folder = folder

    def __getitem__(self, source: str) -> Any:
        name, key = source.split("#", 1)
        if name not in self.files:
            self.files[name] = self._read(name)
        found = self.files[name]
        if name in KEYS:
            size, parts = len(KEYS[name][0]), key.split("/")
            column = parts[size] if len(parts) > size else KEYS[name][1]
            return found["/".join(parts[:size])][column]
        for name in (part.replace("~1", "/").replace("~0", "~") for part in key.split("/")[1:]):
            found = found[int(name)] if isinstance(found, list) else found[name]
        return found

    def _read(self, name: str) -> Any:
        path = self.folder / name
        if name not in KEYS:
            return json.loads(path.read_text())
        with path.open(newline="") as file:
            return {self._key(name, row): row for row in csv.DictReader(file)}

    def _key(self, name: str, row: dict[str, str]) -> str:
        values = (f"llm-{row[one]}" if one == "llm" else row[one] or "-" for one in KEYS[name][0])
        return "/".join(values)
