"""One column: a model that is loaded when it is first asked, what it says, and what is measured of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from regap_patch.demo.meter import gap_of, layers_of
from regap_patch.demo.reference import Reference
from regap_patch.demo.requests import Asked, Request
from regap_patch.demo.verdicts import Badge, badges
from regap_patch.errors import ReGapError
from regap_patch.judges.protocol import Judge
from regap_patch.judges.response_class import classify
from regap_patch.measure.centroids import LayerDistance
from regap_patch.records import ResponseClass
from regap_patch.safety.target import Reply

State = Literal["waiting", "loading", "answering", "done", "failed", "stopped"]
MOST_STACKS = 4  # of defences that stay prepared
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a column shows.

    Attributes:
        state: how far it is.
        text: so far, or whole.
        error: why there is none.
        response_class: by our rules: a refusal, help, ...; None before the end.
        badges: of the judges.
        finish_reason: "stop" or "length".
        num_tokens: new tokens of the answer.
        generations: that it took; more than 1 with some defences.
        first_token_refusal_prob: None where it is out of reach.
        first_seconds: until the first token.
        seconds: until the last.
        gap: of this input, by statistic; None where there is none.
        no_gap: why.
    """

    state: State = "waiting"
    text: str = ""
    error: str = ""
    response_class: ResponseClass | None = None
    badges: tuple[Badge, ...] = ()
    finish_reason: str = ""
    num_tokens: int = 0
    generations: int = 1
    first_token_refusal_prob: float | None = None
    first_seconds: float | None = None
    seconds: float | None = None
    gap: Mapping[str, float] | None = None
    no_gap: str = ""


@dataclass
class Side:
    """A model with its name, its defences and its reference.

    Attributes:
        name: for people.
        open: gives the target; called again after a failure.
        defend: puts a stack of these names around a target.
        defenses: that can be chosen.
        reference: of its gap; None without one.
    """

    name: str
    open: Callable[[], Any]
    defend: Callable[[Any, Sequence[str]], Any] = lambda target, names: target
    defenses: tuple[str, ...] = ()
    reference: Reference | None = None
    _target: Any = field(default=None, init=False, repr=False)
    _stacks: dict[tuple[str, ...], Any] = field(default_factory=dict, init=False, repr=False)

    def target(self) -> Any:
        """The model, opened once."""
        if self._target is None:
            self._target = self.open()
        return self._target

    def answer(
        self,
        request: Request,
        names: Sequence[str],
        question: Asked,
        judges: Sequence[Judge],
        show: Callable[[Answer], None],
    ) -> None:
        """Answer, and show how far it is; the last that is shown is final.

        Args:
            request: for its settings.
            names: of the defences.
            question: what the model gets.
            judges: to be asked about the answer.
            show: called again and again; what it raises ends the answer.

        Raises:
            Exception: of any kind, by the model or by `show`; then `give_up` is to be told.
        """
        show(Answer("loading"))
        target = self._defended(tuple(names))
        show(Answer("answering"))
        answered = _generated(target, request, question, show)
        show(answered)
        if answered.state == "failed":
            return
        judged = replace(answered, badges=badges(judges, request.prompt, answered.text, request.kind))
        show(judged)
        show(replace(_measured(judged, self.target(), question), state="done"))

    def layers(self, question: Asked) -> list[LayerDistance]:
        """The curve of an input."""
        return layers_of(self.target(), question.question)

    def close(self) -> None:
        """Let go of the model."""
        for defended in self._stacks.values():
            defended.stack.close()
        self._stacks.clear()
        if self._target is not None:
            self._target.close()
        self._target = None

    def _defended(self, names: tuple[str, ...]) -> Any:
        target = self.target()
        if not names:
            return target
        if names not in self._stacks:
            while len(self._stacks) >= MOST_STACKS:
                self._stacks.pop(next(iter(self._stacks))).stack.close()
            self._stacks[names] = self.defend(target, names)
        return self._stacks[names]

    def give_up(self, error: Exception) -> None:
        """After an error that nobody foresaw the model is loaded anew: who knows what is left of it."""
        if isinstance(error, ReGapError):
            return
        logger.exception("%s failed", self.name)
        try:
            self.close()
        except Exception:
            logger.exception("%s does not close", self.name)
            self._target = None


def in_words(error: Exception) -> str:
    """Ours is a sentence; of others the kind belongs to it."""
    return str(error) if isinstance(error, ReGapError) else f"{type(error).__name__}: {error}"


def _generated(target: Any, request: Request, question: Asked, show: Callable[[Answer], None]) -> Answer:
    began = time.perf_counter()
    so_far = Answer("answering")

    def tell(text: str) -> None:
        nonlocal so_far
        passed = time.perf_counter() - began
        first = so_far.first_seconds if so_far.first_seconds is not None else passed
        so_far = replace(so_far, text=text, first_seconds=first, seconds=passed)
        show(so_far)

    with target.telling(tell):
        (reply,) = target.answer([question.question], request.decoding, [request.seed])
    passed = time.perf_counter() - began
    return _answered(reply, replace(so_far, seconds=passed, first_seconds=so_far.first_seconds or passed))


def _answered(reply: Reply, so_far: Answer) -> Answer:
    if reply.error is not None:
        return replace(so_far, state="failed", error=reply.error)
    return replace(
        so_far,
        text=reply.text,
        response_class=classify(reply.text),
        finish_reason=reply.finish_reason,
        num_tokens=reply.num_tokens,
        generations=int((reply.trace or {}).get("generations", 1)),
        first_token_refusal_prob=reply.first_token_refusal_prob,
    )


def _measured(so_far: Answer, target: Any, question: Asked) -> Answer:
    """A gap that cannot be taken, for whatever reason, is no failure of the answer."""
    try:
        return replace(so_far, gap=gap_of(target, question.question))
    except Exception as error:
        if not isinstance(error, ReGapError):
            logger.exception("the gap was not measured")
        return replace(so_far, no_gap=in_words(error))
