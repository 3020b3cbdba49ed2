"""What is asked of a model: a prompt, its pictures, and what its answer's row says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER
from llava.eval.command_line import InputError
from llava.eval.json_files import read_json_lines

if TYPE_CHECKING:
    from PIL.Image import Image

MISSING_SHOWN = 3


class Picture(Protocol):
    """Something to look at that is not in memory yet."""

    name: str

    def exists(self) -> bool:
        """Whether there is something to open."""
        ...

    def open(self) -> Image:
        """The RGB picture."""
        ...


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A file, or an http(s) address."""

    name: str

    def exists(self) -> bool:
        """Whether the file is there; an address is taken at its word."""
        return "://" in self.name or Path(self.name).is_file()

    def open(self) -> Image:
        """The RGB picture."""
        from llava.mm_utils import load_image

        return load_image(self.name)


@dataclass(frozen=True, slots=True)
class Question:
    """One row to write.

    Attributes:
        key: how a scorer finds the row: `{"question_id": ...}`, and `round_id` where options go round.
        said: the row's `prompt`: the words of the user as benchmarks join on them.
        text: what the model reads; pictures are in front, or where `<image-placeholder>` stands.
        pictures: what it sees, in order.
        extra: further fields of the row.
    """

    key: dict[str, Any]
    said: str
    text: str
    pictures: tuple[Picture, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


def read_questions(question_file: str, image_folder: str) -> list[Question]:
    """Rows `question_id, text, image?` of a JSON lines file; `image` is one file or a list of several.

    Pictures stand in front of the text, or where it says `<image>`.

    Raises:
        InputError: the file cannot be read, a row lacks a field, or has another number of `<image>`.
    """
    questions = []
    for number, row in enumerate(read_json_lines(question_file), 1):
        lacking = [name for name in ("question_id", "text") if name not in row]
        if lacking:
            raise InputError(f"Row {number} of '{question_file}' has no '{lacking[0]}'; each row needs it.")
        key = {"question_id": row["question_id"]}
        pictures = picture_files(row, image_folder)
        placed = row["text"].count(DEFAULT_IMAGE_TOKEN)
        if placed not in (0, len(pictures)):
            raise InputError(
                f"Row {number} of '{question_file}' has {placed} {DEFAULT_IMAGE_TOKEN} and {len(pictures)} "
                f"pictures; write {DEFAULT_IMAGE_TOKEN} once for each, or not at all to have them in front."
            )
        text = row["text"].replace(DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER)
        questions.append(Question(key, row["text"], text, pictures))
    return questions


def picture_files(row: dict[str, Any], folder: str) -> tuple[PictureFile, ...]:
    """What a row's `image` names: nothing, a file or several."""
    image = row.get("image")
    names = [image] if isinstance(image, str) else image or []
    at = Path(folder).expanduser()
    return tuple(PictureFile(name if "://" in name else str(at / name)) for name in names)


def check_pictures_exist(questions: Sequence[Question]) -> None:
    """Look for every picture before the model is loaded: a run must not die on the last one.

    Raises:
        InputError: some are missing; names the first ones.
    """
    wanted = {picture.name: picture for question in questions for picture in question.pictures}
    missing = [name for name, picture in wanted.items() if not picture.exists()]
    if missing:
        more = f" and {len(missing) - MISSING_SHOWN} more" if len(missing) > MISSING_SHOWN else ""
        names = ", ".join(f"'{name}'" for name in missing[:MISSING_SHOWN])
        raise InputError(
            f"{len(missing)} of {len(wanted)} pictures do not exist ({names}{more}); check --image-folder."
        )


def open_pictures(question: Question) -> list[Image]:
    """The pictures of a question.

    Raises:
        InputError: one is damaged or gone; names the question.
    """
    try:
        return [picture.open() for picture in question.pictures]
    except Exception as error:  # of many types, as Pillow's are
        raise InputError(
            f"A picture of question {next(iter(question.key.values()))!r} cannot be opened: "
            f"{str(error).rstrip('.')}; the answers so far are kept, and the same command goes on there."
        ) from error
