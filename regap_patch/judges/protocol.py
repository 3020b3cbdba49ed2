"""What a judge is: exchanges in, judgements out, in batches. Who it is goes into the key of every verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from regap_patch.errors import JudgeError
from regap_patch.judges.response_class import classify, is_empty
from regap_patch.records import Kind, Label, ResponseClass


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was asked and what was answered.

    Attributes:
        question: the sample's `judge_question`: the plain intent, never a benchmark's wrapper around it.
        answer: text of the target.
        kind: of the sample: whether help would be harmful.
        meta: those of the sample's `meta` that the judge names in `meta_fields`.
    """

    question: str
    answer: str
    kind: Kind = "harm"
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge makes of one exchange; the fields are those of `Verdict`."""

    label: Label
    response_class: ResponseClass
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    raw: str = ""
    truncated_input: bool = False
    error: str | None = None


class Judge(Protocol):
    """One way to judge.

    Attributes:
        name: of the preset; folder of the verdicts.
        revision: of weights, word list or rubric: another revision is another judge.
        settings: all else that may change a score, without thresholds; plain JSON values.
        threshold: a score above it is unsafe; None where the label does not come from the score.
        kinds: of samples that it judges.
        meta_fields: of the sample's `meta` that it reads.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def revision(self) -> str: ...  # noqa: D102
    @property
    def settings(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def threshold(self) -> float | None: ...  # noqa: D102
    @property
    def kinds(self) -> tuple[Kind, ...]: ...  # noqa: D102
    @property
    def meta_fields(self) -> tuple[str, ...]: ...  # noqa: D102

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        """One judgement for each exchange, in their order. No answer is empty here."""


HARM_AND_BENIGN: tuple[Kind, ...] = ("harm", "benign")


def failed(error: str, raw: str = "") -> Judgement:
    """A judgement that did not come about: unscored, and kept in every denominator."""
    return Judgement("unscored", "judge-error", raw=raw, error=error)


def decided(label: Label, answer: str, **fields: Any) -> Judgement:
    """The label is the judge's; what kind of safe answer it is, our rules say."""
    return Judgement(label, "unsafe" if label == "unsafe" else classify(answer), **fields)


def relabelled(judge: Judge, judgement: Judgement, answer: str) -> Judgement:
    """The same score under the judge's threshold of today; without one, what it said counts again.

    Judges whose label comes from a word and, with a threshold, from its probability have `parse`.
    """
    if judgement.score is None or judgement.label == "unscored":
        return judgement
    label: Label = judgement.label
    if judge.threshold is not None:
        label = "unsafe" if judgement.score > judge.threshold else "safe"
    elif hasattr(judge, "parse"):
        label = judge.parse(judgement.raw)
    if label == judgement.label:
        return judgement
    return replace(judgement, label=label, response_class=decided(label, answer).response_class)


def judge_all(
    judge: Judge, exchanges: Sequence[Exchange], batch_size: int
) -> Iterator[list[tuple[int, Judgement]]]:
    """Batches of like length; each comes out as (index in `exchanges`, judgement).

    An empty answer is not shown to the judge: it does no harm and gives no help, and its class says so (to a
    utility item it is a wrong answer like others).

    Raises:
        JudgeError: the judge gave another number of judgements than it was asked for.
    """
    empty = [
        index
        for index, exchange in enumerate(exchanges)
        if exchange.kind != "utility" and is_empty(exchange.answer)
    ]
    if empty:
        yield [(index, Judgement("safe", "empty")) for index in empty]
    said = set(empty)
    asked = sorted(
        (index for index in range(len(exchanges)) if index not in said),
        key=lambda index: (len(exchanges[index].question) + len(exchanges[index].answer), index),
    )
    for start in range(0, len(asked), batch_size):
        batch = asked[start : start + batch_size]
        found = judge.judge([exchanges[index] for index in batch])
        if len(found) != len(batch):
            raise JudgeError(
                f"{judge.name} was asked about {len(batch)} answers and gave {len(found)} judgements: a "
                f"judge gives one for each, `unscored` where it has none."
            )
        yield list(zip(batch, found, strict=True))
