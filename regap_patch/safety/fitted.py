"""Items that a target was fitted on: to ask them would measure memory, so they are left out and listed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from regap_patch.records import Sample


class FittedOn(Protocol):
    """Words, or words with a picture, that something was fitted on."""

    @property
    def uid(self) -> str:
        """Of a benchmark's item; "" for none."""

    @property
    def text(self) -> str:
        """Its words."""

    @property
    def picture_sha256(self) -> str | None:
        """Of the picture that was shown with them; None where the words alone were."""


class Fitted:
    """Whether an item is one of those.

    It is if its uid is one's; or if its prompt, or the plain intent behind it, is one's word for word and,
    for one that came with a picture, its picture is that one: items of FigStep share their words and differ
    in their pictures.

    Args:
        items: what something was fitted on.
    """

    def __init__(self, items: Iterable[FittedOn]) -> None:
        self._uids: set[str] = set()
        self._pictures: dict[str, set[str | None]] = {}
        for item in items:
            self._uids.add(item.uid)
            self._pictures.setdefault(_words(item.text), set()).add(item.picture_sha256)
        self._uids.discard("")

    def holds(self, item: Sample, root: Path) -> bool:
        """Whether this item, as its adapter gives it, is one of them.

        Args:
            item: of a benchmark.
            root: folder that its picture is relative to.
        """
        if item.uid in self._uids:
            return True
        texts = {item.prompt, item.judge_question, str(item.meta.get("text_prompt", ""))} - {""}
        pictures = set[str | None]().union(*(self._pictures.get(_words(text), set()) for text in texts))
        return None in pictures or (bool(pictures) and _picture(item, root) in pictures)


def _words(text: str) -> str:
    return " ".join(text.split())


def _picture(item: Sample, root: Path) -> str | None:
    path = None if item.image is None else root / item.image
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else None
