"""What judges make of one answer: a badge each, `unscored` where one has nothing to say."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from regap_patch.demo.requests import Kind
from regap_patch.errors import ReGapError
from regap_patch.judges.protocol import Exchange, Judge, Judgement, judge_all
from regap_patch.records import Kind as SampleKind
from regap_patch.records import Label, ResponseClass

EITHER: tuple[SampleKind, ...] = ("harm", "benign")
_TURN = threading.Lock()  # both sides have the same judges, whose tokenizers and models are for one thread


@dataclass(frozen=True, slots=True)
class Badge:
    """One judge's word on one answer.

    Attributes:
        judge: name of the preset.
        label: safe, unsafe or unscored.
        response_class: a finer class.
        score: behind the label; None where there is none.
        why: of an unscored one.
    """

    judge: str
    label: Label
    response_class: ResponseClass
    score: float | None = None
    why: str = ""


def badges(judges: Sequence[Judge], question: str, answer: str, kind: Kind) -> tuple[Badge, ...]:
    """A badge of each judge, asked by one side at a time.

    One that fails is unscored, and the others are heard all the same.
    """
    with _TURN:
        return tuple(_badge(judge, question, answer, kind) for judge in judges)


def _badge(judge: Judge, question: str, answer: str, kind: Kind) -> Badge:
    if judge.meta_fields:
        needed = ", ".join(judge.meta_fields)
        return _unscored(judge, f"it reads {needed} of a benchmark's item, and this is none")
    kinds = EITHER if kind == "unknown" else (kind,)
    judged = [one for one in kinds if one in judge.kinds]
    if not judged:
        return _unscored(judge, f"it judges requests of kind {', '.join(judge.kinds)} alone")
    try:
        found = [_judged(judge, Exchange(question, answer, one)) for one in judged]
    except ReGapError as error:
        return _unscored(judge, str(error))
    except Exception as error:  # a judge's weights or server, of any kind
        return _unscored(judge, f"{type(error).__name__}: {error}")
    first = found[0]
    if any(other.label != first.label for other in found):
        return _unscored(judge, "its word depends on whether the request is harmful: say which")
    return Badge(judge.name, first.label, first.response_class, first.score, first.error or "")


def _judged(judge: Judge, exchange: Exchange) -> Judgement:
    ((_, found),) = (pair for batch in judge_all(judge, [exchange], 1) for pair in batch)
    return found


def _unscored(judge: Judge, why: str) -> Badge:
    return Badge(judge.name, "unscored", "judge-error", why=why)
