"""What answers: a checkpoint, a server, a defended model or anything else that keeps this protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from regap_patch.errors import ConfigError

MAX_SEED = 1 << 63


@dataclass(frozen=True, slots=True)
class Question:
    """What a target is asked.

    Attributes:
        prompt: the user's words, without a placeholder for the picture.
        picture: bytes of a picture file; None for text alone.
        words: text that stands where the picture would; never together with a picture.
    """

    prompt: str
    picture: bytes | None = None
    words: str | None = None

    @property
    def text(self) -> str:
        """The user's turn without the picture: the words, where there are any, and under them the prompt."""
        return self.prompt if self.words is None else f"{self.words}\n{self.prompt}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a target said.

    Attributes:
        text: the answer, without white space around it.
        num_tokens: new tokens, the one that ended the answer included.
        finish_reason: "stop", "length", or "error".
        first_token_refusal_prob: probability that the first token opens a refusal; None where not taken.
        error: why there is no answer; then `text` is empty.
        trace: how it came about, plain JSON values, for the run's `trace/`; no part of the answer.
    """

    text: str
    num_tokens: int
    finish_reason: str
    first_token_refusal_prob: float | None = None
    error: str | None = None
    trace: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an answer is drawn.

    Attributes:
        max_new_tokens: length of the longest answer.
        temperature: 0 for the likeliest answer, else of sampling.
        top_p: sample from the likeliest tokens of this total probability.

    Raises:
        ConfigError: a number outside its range.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}: an answer has at least one token.")
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature}: 0 is greedy, above it is sampling.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}: a share of probability above 0, up to 1.")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dataclasses.asdict(self)


class Target(Protocol):
    """One question in, one answer out, whoever answers.

    A target loads its weights at the first `answer`, so that a run that has nothing left to do loads none.
    """

    def fingerprint(self) -> dict[str, Any]:
        """All that may change an answer, as plain JSON values: weights, template, dtype, attention, ...

        Raises:
            EvaluationError: there is no such target.
        """

    def answer(self, questions: Sequence[Question], decoding: Decoding, seeds: Sequence[int]) -> list[Reply]:
        """One reply for each question, each as if it were asked alone.

        Args:
            questions: a batch.
            decoding: how answers are drawn.
            seeds: of sampling, one for each question; of no effect with greedy decoding.

        Raises:
            EvaluationError: nothing can be answered at all; what fails for one question alone is an
                `error` in its reply.
        """

    def close(self) -> None:
        """Let go of what is held; a further question takes it up again."""
