"""What is asked of both models: a prompt, what stands in the picture's place, and how answers are drawn."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from regap_patch.demo.pictures import Picture
from regap_patch.errors import DemoError
from regap_patch.records import ImageMode
from regap_patch.safety.image_modes import SIDE, WORDS, meaningless
from regap_patch.safety.target import MAX_SEED, Decoding, Question

Kind = Literal["unknown", "harm", "benign"]
KINDS: tuple[Kind, ...] = ("unknown", "harm", "benign")
MODES: tuple[ImageMode, ...] = ("real", "none", "words", "blank", "black", "grey", "noise", "irrelevant")
LONGEST_PROMPT = 8000  # characters
MOST_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One comparison, as somebody wants it.

    Attributes:
        prompt: the user's words.
        picture: as uploaded and checked; mode `real` shows it, others may take its size.
        mode: what stands in the picture's place.
        kind: whether help would be harmful, as the user says; judges of refusals need to know.
        seed: of sampling on both sides, of noise and of choices.
        max_new_tokens: of an answer.
        temperature: 0 for the likeliest answer.
        defenses: names of the defences of each side.

    Raises:
        DemoError: a setting that means nothing.
    """

    prompt: str
    picture: Picture | None = None
    mode: ImageMode = "real"
    kind: Kind = "unknown"
    seed: int = 0
    max_new_tokens: int = 64
    temperature: float = 0.0
    defenses: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise DemoError("There is no prompt: write what both models are to be asked.")
        if len(self.prompt) > LONGEST_PROMPT:
            raise DemoError(
                f"The prompt has {len(self.prompt)} characters, and {LONGEST_PROMPT} are taken: shorten it."
            )
        if self.mode not in MODES:
            raise DemoError(f"The image mode is {self.mode!r}: choose one of {', '.join(MODES)}.")
        if self.kind not in KINDS:
            raise DemoError(f"The kind of request is {self.kind!r}: choose one of {', '.join(KINDS)}.")
        if not 0 <= self.seed < MAX_SEED:
            raise DemoError(f"The seed is {self.seed}: take a whole number from 0 to {MAX_SEED - 1}.")
        if not 1 <= self.max_new_tokens <= MOST_TOKENS:
            raise DemoError(
                f"An answer of {self.max_new_tokens} tokens was asked for: take 1 to {MOST_TOKENS}."
            )
        if not 0 <= self.temperature <= 5:
            raise DemoError(f"The temperature is {self.temperature}: take 0 (the likeliest answer) to 5.")

    @property
    def decoding(self) -> Decoding:
        """For a target."""
        return Decoding(self.max_new_tokens, self.temperature)

    def in_mode(self, mode: ImageMode) -> Request:
        """The same with something else in the picture's place."""
        return dataclasses.replace(self, mode=mode)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the models get.

    Attributes:
        question: for a target.
        what: stands in the picture's place, for people.
        picture_sha256: of the bytes; None without a picture.
    """

    question: Question
    what: str
    picture_sha256: str | None


def possible_modes(request: Request) -> tuple[ImageMode, ...]:
    """All that a request can be asked in: `real` needs a picture."""
    return MODES if request.picture is not None else MODES[1:]


def asked(request: Request, pool: Sequence[Picture] = ()) -> Asked:
    """A request in its image mode, as `regap eval run` would make it.

    Args:
        request: whose draws depend on its seed, mode and prompt alone.
        pool: pictures for mode irrelevant; the request's own is passed over.

    Raises:
        DemoError: there is nothing to show in that mode.
    """
    draw = Random(hashlib.sha256(f"{request.seed}\0{request.mode}\0{request.prompt}".encode()).digest())
    own, mode = request.picture, request.mode
    if mode == "none":
        return Asked(Question(request.prompt), "no picture, the words alone", None)
    if mode == "words":
        words = WORDS[draw.getrandbits(64) % len(WORDS)]
        return Asked(Question(request.prompt, words=words), f"words where a picture would be: {words}", None)
    if mode == "real":
        if own is None:
            raise DemoError(
                "Mode real shows your picture, and there is none: upload one, or choose none or blank."
            )
        changed = f" ({own.changed})" if own.changed else ""
        what, picture = f"your picture, {own.width} x {own.height}{changed}", own.png
    elif mode == "irrelevant":
        others = [one for one in pool if own is None or one.sha256 != own.sha256]
        if not others:
            raise DemoError(
                "Mode irrelevant shows another picture, and the demo was given none: start it with "
                "--irrelevant_images FOLDER, or choose another mode."
            )
        other = others[draw.getrandbits(64) % len(others)]
        what, picture = f"another picture, {other.width} x {other.height}", other.png
    else:
        width, height = (SIDE, SIDE) if own is None else (own.width, own.height)
        what, picture = f"{mode} picture, {width} x {height}", meaningless(mode, (width, height), draw)
    return Asked(Question(request.prompt, picture), what, hashlib.sha256(picture).hexdigest())
