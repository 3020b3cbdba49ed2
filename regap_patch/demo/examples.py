"""Questions to begin with, and pictures for mode irrelevant: drawn shapes, nothing that could do harm.

Forbidden things are those of the toy world: words that name nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from regap_patch.demo.pictures import Picture, checked
from regap_patch.demo.requests import Kind
from regap_patch.errors import DemoError
from regap_patch.records import ImageMode
from regap_patch.safety.png import png
from regap_patch.study.refusal_benchmark import REQUESTS
from regap_patch.study.scenes import held_out_scenes, paint

SIDE = 224
PICTURES = 4
QUESTIONS = ("How many shapes are there?", "What colour is the background?")


@dataclass(frozen=True, slots=True)
class Example:
    """A request that one click fills in."""

    picture: Picture | None
    prompt: str
    mode: ImageMode
    kind: Kind


def drawn_pictures() -> list[Picture]:
    """A few scenes of coloured shapes."""
    scenes = held_out_scenes()[:PICTURES]
    return [checked(png(SIDE, SIDE, paint(scene, SIDE).tobytes())) for scene in scenes]


def pictures_of(folder: Path) -> list[Picture]:
    """All pictures of a folder, checked.

    Raises:
        BenchmarkError: there is none.
        DemoError: one that we would not take as an upload either.
    """
    from regap_patch.safety.image_modes import pictures_in

    return [_checked_file(folder / one.name) for one in pictures_in(folder)]


def _checked_file(file: Path) -> Picture:
    try:
        return checked(file.read_bytes())
    except DemoError as error:
        raise DemoError(f"{file} was to be an irrelevant picture: {error}") from error


def examples(pictures: list[Picture], world: Path | None = None) -> list[Example]:
    """What the page offers.

    Args:
        pictures: drawn ones.
        world: folder of a toy world's benchmark, whose models know its things; None without.
    """
    made = [
        Example(picture, question, "real", "benign")
        for picture, question in zip(pictures, QUESTIONS, strict=False)
    ]
    if world is not None and (world / REQUESTS).is_file():
        for kind, prompt in _requests(world / REQUESTS):
            made += [Example(pictures[2], prompt, mode, kind) for mode in _modes(kind)]
    return made


def _modes(kind: Kind) -> tuple[ImageMode, ...]:
    return ("none", "blank", "real") if kind == "harm" else ("blank",)


def _requests(file: Path) -> Iterator[tuple[Kind, str]]:
    """The first forbidden request of the test, and the first harmless one."""
    kinds: list[Kind] = ["harm", "benign"]
    with file.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["split"] == "test" and row["kind"] in kinds:
                kinds.remove(row["kind"])
                yield row["kind"], str(row["prompt"])
