"""Where images and texts come from: folders, LLaVA-format JSON, plain text and story files.

Every list is in the order of its names, never in that of the file system, so that a seed means the same
everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regap_patch.errors import MeasureError

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
TEXTS = (".story", ".txt")
HIGHLIGHT = "@highlight"  # a story file: the article, then its summary, each line of that after this mark
PLACEHOLDER = "<image>"


@dataclass(frozen=True, slots=True)
class Named:
    """A text and what to call it in a message.

    Attributes:
        name: file, line or id, unique in its source.
        text: the words; empty where the source has none.
        images: files that the source shows with it, as written there.
    """

    name: str
    text: str
    images: tuple[str, ...] = ()


def image_files(source: Path, folder: Path | None = None) -> list[Path]:
    """Image files below a folder, or those that a LLaVA-format JSON names, each once and sorted.

    Args:
        source: folder or JSON.
        folder: what the names in the JSON are relative to; by default where the JSON lies.

    Raises:
        MeasureError: nothing is there, or no image is in it.
    """
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGES)
        kinds = ", ".join(IMAGES)
        if not found:
            raise MeasureError(
                f"Images were asked for from {source}, but no file below it ends in {kinds}: name the folder "
                f"that holds them."
            )
        return found
    names = {image for sample in llava_samples(source) for image in sample.images}
    if not names:
        raise MeasureError(
            f"Images were asked for from {source}, but none of its samples has an `image`: name another "
            f"JSON, or a folder of images."
        )
    return [(folder or source.parent) / name for name in sorted(names)]


def texts(source: Path) -> list[Named]:
    """Texts of a folder (one a file), of a LLaVA-format JSON (the answers of a sample), or of one file.

    A `.story` file ends at its first `@highlight`; a `.txt` file named by itself holds one text a line.

    Raises:
        MeasureError: nothing is there, or it is of no such kind.
    """
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.suffix.lower() in TEXTS)
        if not found:
            raise MeasureError(
                f"Texts were asked for from {source}, but no file below it ends in {' or '.join(TEXTS)}: "
                f"name the folder that holds them, or a JSON in LLaVA's format."
            )
        return [Named(str(path.relative_to(source)), story(path)) for path in found]
    if source.suffix.lower() == ".json":
        return llava_samples(source)
    if source.suffix.lower() == ".story":
        return [Named(source.name, story(source))]
    lines = [_words(line) for line in _read(source).splitlines()]
    return [Named(f"line {number}", line) for number, line in enumerate(lines, 1) if line]


def story(path: Path) -> str:
    """The article of a story file, without its summary; a plain text file is all article.

    Raises:
        MeasureError: there is no text before the summary, or the file is no text.
    """
    text = _words(_read(path).partition(HIGHLIGHT)[0])
    if not text:
        raise MeasureError(
            f"The text of {path} was asked for, but the file has none before its first {HIGHLIGHT}: take it "
            f"out of the folder, or mend it."
        )
    return text


def llava_samples(source: Path) -> list[Named]:
    """The samples of a JSON in LLaVA's format: the model's turns as one text, in the order of the file.

    Raises:
        MeasureError: the file is not such a JSON.
    """
    try:
        samples = json.loads(_read(source))
    except ValueError as error:
        raise MeasureError(
            f"{source} cannot be read as JSON ({error}): name a file in LLaVA's format, a folder, or a text "
            f"file."
        ) from error
    if not isinstance(samples, list):
        raise MeasureError(
            f"{source} holds no list of samples but {type(samples).__name__}: name a JSON in LLaVA's format, "
            f'`[{{"id": ..., "image": ..., "conversations": [...]}}, ...]`.'
        )
    return [_sample(sample, index, source) for index, sample in enumerate(samples)]


def _sample(sample: Any, index: int, source: Path) -> Named:
    turns = sample.get("conversations") if isinstance(sample, Mapping) else None
    if not isinstance(turns, Sequence) or not all(
        isinstance(turn, Mapping) and isinstance(turn.get("value"), str) for turn in turns
    ):
        raise MeasureError(
            f"Sample {index} of {source} has no `conversations` with a `value` in each turn: name a JSON in "
            f"LLaVA's format."
        )
    said = [_words(turn["value"]) for turn in turns if turn.get("from") == "gpt"]
    images = sample.get("image") or ()
    return Named(
        f"{index} (id {sample.get('id', '-')})",
        " ".join(part for part in said if part),
        (images,) if isinstance(images, str) else tuple(images),
    )


def _words(text: str) -> str:
    """The text without `<image>`, in whose place a prompt would want a picture."""
    return text.replace(PLACEHOLDER, "").strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="strict")
    except (OSError, UnicodeDecodeError) as error:
        raise MeasureError(
            f"{path} was to be read as text, but that failed ({type(error).__name__}: {error}): name a UTF-8 "
            f"text file, a JSON, or a folder."
        ) from error
