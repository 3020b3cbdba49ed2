"""The samples of one LLaVA JSON file, kept lean: one buffer instead of millions of objects.

Forked data workers share its memory: reading a sample touches no reference count inside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

_BLANK = re.compile(r"[ \t\n\r]*")


class SampleFile(Sequence[Any]):
    """A read-only list of the entries of a JSON list file.

    Attributes:
        path: The file.
        words: int32 (N,), whitespace-separated words in each entry's turns; 0 for an entry of another form.
        has_image: bool (N,), whether each entry has the key `image`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not UTF-8 JSON, or not a list.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"--data_path {path} is not a file: pass the JSON file of the samples.")
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"--data_path {path} is not UTF-8 at byte {error.start}: save it as UTF-8 JSON."
            ) from error
        words: list[int] = []
        has_image: list[bool] = []
        entries = bytearray()
        ends = [0]
        try:
            for raw, entry in _entries(text):
                words.append(_count_words(entry))
                has_image.append(isinstance(entry, dict) and "image" in entry)
                entries += raw.encode("utf-8", "surrogatepass")
                ends.append(len(entries))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"--data_path {path} is not a valid JSON list at line {error.lineno}, column {error.colno} "
                f"({error.msg}): repair the file there."
            ) from error
        self._entries = entries
        self._ends = np.asarray(ends, dtype=np.int64)
        self.words = np.asarray(words, dtype=np.int32)
        self.has_image = np.asarray(has_image, dtype=bool)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def largest(self, count: int, image_tokens: int) -> list[int]:
        """Indices of the entries that are likely to make the most tokens.

        Args:
            count: how many, at most.
            image_tokens: that one image makes; a token of text is taken for four bytes.
        """
        ends = self._ends.tolist()
        images = [self._entries.count(b"<image>", *span) for span in pairwise(ends)]
        sizes = np.diff(self._ends) / 4 + np.asarray(images) * image_tokens
        return np.argsort(-sizes, kind="stable")[:count].tolist()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]  # negative and out-of-range indices as in a list
        return json.loads(self._entries[self._ends[place] : self._ends[place + 1]])


def _entries(text: str) -> Iterator[tuple[str, Any]]:
    """Each element of a JSON list, as text and as value; only one is alive as a value at a time."""

    def skip(place: int) -> int:
        return _BLANK.match(text, place).end()  # type: ignore[union-attr]  # the pattern matches anywhere

    decoder = json.JSONDecoder()
    place = skip(0)
    if text[place : place + 1] != "[":
        raise json.JSONDecodeError("a list was expected", text, place)
    place = skip(place + 1)
    while text[place : place + 1] != "]":
        value, end = decoder.raw_decode(text, place)
        yield text[place:end], value
        place = skip(end)
        if text[place : place + 1] == ",":
            place = skip(place + 1)
        elif text[place : place + 1] != "]":
            raise json.JSONDecodeError("a comma or the end of the list was expected", text, place)
    if skip(place + 1) != len(text):
        raise json.JSONDecodeError("the list has ended, but the file goes on", text, skip(place + 1))


def _count_words(entry: Any) -> int:
    try:
        return sum(len(turn["value"].split()) for turn in entry["conversations"])
    except (AttributeError, KeyError, TypeError):
        return 0  # reported when the sample is asked for
