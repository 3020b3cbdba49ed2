"""Files of what a defence is fitted on: JSON lines, checked as a whole before a model is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regap_patch.defenses.protocol import FittedItem, Turn
from regap_patch.errors import DefenseError


@dataclass(frozen=True, slots=True)
class Anchor:
    """Words, and the picture that they came with.

    Attributes:
        uid: of a benchmark's item; "" for what comes from elsewhere.
        text: what the user says.
        picture: file of the picture; None for words alone.
    """

    uid: str
    text: str
    picture: Path | None

    def turn(self, number: int) -> Turn:
        """As it is asked; uid and words seed what is drawn for it."""
        data = None if self.picture is None else self.picture.read_bytes()
        seed = int.from_bytes(hashlib.sha256(f"{self.uid}\0{self.text}".encode()).digest()[:7], "big")
        return Turn(number, self.text, self.text, data, seed)

    def fitted(self) -> FittedItem:
        """As the evaluation is told of it."""
        data = None if self.picture is None else self.picture.read_bytes()
        return FittedItem(self.uid, self.text, None if data is None else hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class Opposed:
    """A harmful request and a harmless one, as like each other as can be.

    Attributes:
        uid: as in `Anchor`.
        harmful: words.
        harmless: words.
    """

    uid: str
    harmful: str
    harmless: str

    def fitted(self) -> list[FittedItem]:
        """Both sides."""
        return [FittedItem(self.uid, self.harmful), FittedItem(self.uid, self.harmless)]


def read_anchors(path: Path, image_folder: Path | None = None) -> list[Anchor]:
    """Anchors, one a line: `text` (or `prompt`), and `uid` and `image` where there are any.

    A file of samples that `regap eval run` has left is such a file; of an item in several image modes the
    line with its own picture holds, or else the first.

    Args:
        path: of the file.
        image_folder: what `image` is relative to; by default where the file lies.

    Raises:
        DefenseError: no such file, a line that is none, or a picture that is missing or does not open.
    """
    folder = path.parent if image_folder is None else image_folder
    found: list[Anchor] = []
    for number, uid, line in _lines(path):
        whose = f"Line {number} of {path}"
        text = _words(path, number, line, "text" if "text" in line else "prompt")
        known = _known(found, uid, text, whose)
        own = line.get("image_mode", "real") == "real"  # in other modes it is another item's picture, or none
        image = line.get("image") if own else None
        if known is not None and (image is None or found[known].picture is not None):
            continue
        picture = None if image is None else folder / str(image)
        if picture is not None:
            _make_sure(picture, whose)
        anchor = Anchor(uid, text, picture)
        if known is None:
            found.append(anchor)
        else:
            found[known] = anchor
    return found


def read_opposed(path: Path) -> list[Opposed]:
    """Pairs, one a line: `harmful` and `harmless`, and `uid` where there is one.

    Raises:
        DefenseError: no such file, or a line that is none.
    """
    return [
        Opposed(uid, *(_words(path, number, line, side) for side in ("harmful", "harmless")))
        for number, uid, line in _lines(path)
    ]


def _lines(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DefenseError(
            f"Anchors were to be read from {path}, but it cannot be read ({type(error).__name__}): name a "
            f"file with one JSON object a line."
        ) from error
    empty = True
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = dict(json.loads(line))
        except (TypeError, ValueError) as error:
            raise DefenseError(
                f"Line {number} of {path} is no JSON object: mend it, or take it out."
            ) from error
        empty = False
        yield number, str(fields.get("uid", "")), fields
    if empty:
        raise DefenseError(f"Anchors were to be read from {path}, but it holds none: give at least one.")


def _known(found: list[Anchor], uid: str, text: str, whose: str) -> int | None:
    """Place of the anchor of this uid, if there is one."""
    place = next((place for place, anchor in enumerate(found) if uid and anchor.uid == uid), None)
    if place is not None and found[place].text != text:
        raise DefenseError(f"{whose} is {uid} once more, with other words: take one of them out.")
    return place


def _words(path: Path, number: int, line: dict[str, Any], name: str) -> str:
    words = line.get(name)
    if not isinstance(words, str) or not words.strip():
        raise DefenseError(f"Line {number} of {path} has no words under {name!r}: give them as text.")
    return words


def _make_sure(picture: Path, whose: str) -> None:
    from PIL import Image

    try:
        with Image.open(picture) as image:
            image.verify()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = "there is no such file" if not picture.is_file() else f"it does not open ({error})"
        raise DefenseError(
            f"{whose} shows the picture {picture}, but {why}: put it there, or name its folder with "
            f"--image_folder."
        ) from error
