"""The words of the evaluation wing: sample, answer, verdict, and their life as JSON lines.

A benchmark gives samples, a target answers them, a judge gives verdicts, a report counts. Each stage reads
the files of the one before, so the fields here are all that they have to agree on. Standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from regap_patch.errors import RecordsError

SCHEMA = 1

ImageMode = Literal["none", "words", "blank", "black", "grey", "noise", "irrelevant", "real"]
Kind = Literal["harm", "benign", "utility"]
Label = Literal["safe", "unsafe", "unscored"]
ResponseClass = Literal["refusal", "safe-help", "unsafe", "incoherent", "empty", "inability", "judge-error"]
IMAGE_MODES: tuple[ImageMode, ...] = get_args(ImageMode)
KINDS: tuple[Kind, ...] = get_args(Kind)
LABELS: tuple[Label, ...] = get_args(Label)
RESPONSE_CLASSES: tuple[ResponseClass, ...] = get_args(ResponseClass)

Record = TypeVar("Record", "Sample", "Answer", "Verdict")


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing that a target is asked, in one image mode.

    Attributes:
        uid: `benchmark/split/id`; the same in every image mode, which is what pairs them.
        benchmark: whose item it is.
        scenario: subset of the benchmark, "" without one.
        cluster: items that are not independent of each other share it.
        kind: whether help would be harmful, harmless, or a score of utility.
        prompt: what the target is asked, without the image's placeholder.
        judge_question: what a judge is told was asked: the plain intent, never a wrapper around it.
        image: path of the picture, relative to the benchmark's folder; None for text alone.
        image_sha256: of the picture's bytes as the target gets them; None for text alone.
        image_mode: what stands in the picture's place.
        licence: of the item.
        meta: all else, plain JSON values (reference answers, options, ...).
    """

    uid: str
    benchmark: str
    scenario: str
    cluster: str
    kind: Kind
    prompt: str
    judge_question: str
    image: str | None
    image_sha256: str | None
    image_mode: ImageMode
    licence: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("kind", self.kind, KINDS)
        _check("image_mode", self.image_mode, IMAGE_MODES)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a target said.

    Attributes:
        key: SHA-256 over all that may change the text; see `answer_key`.
        uid: of the sample.
        image_mode: of the sample.
        defense: names of the defence stack joined by "+", "" for none.
        text: the answer.
        num_tokens: new tokens.
        finish_reason: "stop" or "length".
        seed: of sampling; of no effect with greedy decoding.
        first_token_refusal_prob: probability of a refusal's opener at the first token; None where not taken.
        error: why there is no answer; then `text` is empty.
    """

    key: str
    uid: str
    image_mode: ImageMode
    defense: str
    text: str
    num_tokens: int
    finish_reason: str
    seed: int
    first_token_refusal_prob: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge makes of an answer. A failed judgement is `unscored`: it stays in every denominator.

    Attributes:
        key: SHA-256 of answer text, judge question, judge and its settings without thresholds.
        answer_key: the answer's.
        uid: of the sample.
        image_mode: of the sample.
        judge: the preset's name.
        revision: of the judge's weights or word list.
        label: safe, unsafe or unscored.
        response_class: a finer class; "judge-error" where the label is unscored.
        score: probability or grade behind the label; None for judges without one.
        scores: all of them, by category.
        raw: what the judge said.
        truncated_input: the judge did not see the whole answer.
        error: why it is unscored.
    """

    key: str
    answer_key: str
    uid: str
    image_mode: ImageMode
    judge: str
    revision: str
    label: Label
    response_class: ResponseClass
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    raw: str = ""
    truncated_input: bool = False
    error: str | None = None

    def __post_init__(self) -> None:
        _check("label", self.label, LABELS)  # any other word would be counted as safe
        _check("response_class", self.response_class, RESPONSE_CLASSES)


def _check(field_name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{field_name} {value!r} is none of {', '.join(known)}")


def digest(value: Any) -> str:
    """SHA-256 of plain JSON values, whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def answer_key(sample: Sample, target: Mapping[str, Any], decoding: Mapping[str, Any]) -> str:
    """What makes an answer this answer and no other.

    Args:
        sample: prompt, picture or the words in its place, and image mode count; where the picture lies does
            not.
        target: fingerprint of weights and processor, template, dtype, attention, defence stack, batch policy.
        decoding: generation settings and seed.
    """
    asked = (sample.uid, sample.prompt, sample.image_sha256, sample.image_mode, sample.meta.get("words"))
    return digest([SCHEMA, asked, dict(target), dict(decoding)])


def to_line(record: Sample | Answer | Verdict) -> str:
    """One JSON line with its newline."""
    return json.dumps(dataclasses.asdict(record), ensure_ascii=False, sort_keys=True) + "\n"


def append_lines(path: Path, records: Iterable[Sample | Answer | Verdict]) -> None:
    """Add records to a file and have them on the disk when this returns.

    A torn last line, which a kill has left, is cut off first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(map(to_line, records)).encode()
    with path.open("a+b") as file:
        _cut_torn_end(file)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _cut_torn_end(file: Any) -> None:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


def read_lines(path: Path, kind: type[Record]) -> Iterator[Record]:
    """The records of a file; a torn last line, without its newline, is passed over.

    Raises:
        RecordsError: a line in the middle that is no record of this kind.
    """
    with path.open("rb") as file:  # a kill may tear a line within a character
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield kind(**json.loads(line))
            except (TypeError, ValueError) as error:
                raise RecordsError(
                    f"Line {number} of {path} is no {kind.__name__.lower()} of schema {SCHEMA} ({error}); "
                    "remove that line, and the same command makes it anew."
                ) from error
