"""A target with a defence stack around it: one more target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from random import Random
from typing import TYPE_CHECKING, Any

from regap_patch.commands.latency import Latency

if TYPE_CHECKING:
    from regap_patch.defenses.protocol import Reply as AnyReply
    from regap_patch.defenses.protocol import Turn
    from regap_patch.defenses.stack import Stack
    from regap_patch.hosts.host import Host
    from regap_patch.safety.target import Decoding, Question, Reply


class DefendedTarget:
    """Answers as a target does whose every generation goes through a stack.

    Args:
        target: what answers.
        stack: what stands around it; its own, for it is prepared for this target's weights.
        latency: where its first batches are timed with and without the stack; None to time nothing.
        new: prepare the stack when the fingerprint is asked for, and not at the first question: a run that
            the model or the stack refuses is refused before anything of it is written.
        waits: let go of the weights then, for another's (the parity gate's reference) come first.
    """

    def __init__(
        self,
        target: Any,
        stack: Stack,
        latency: Latency | None = None,
        *,
        new: bool = False,
        waits: bool = False,
    ) -> None:
        self.target, self.stack, self._latency = target, stack, latency
        self._new, self._waits = new, waits
        self._fingerprint: Mapping[str, Any] | None = None
        self._model: LoadedModel | None = None

    def __getattr__(self, name: str) -> Any:
        """What else is asked of a target (`hardware`, `dtype`) is the target's."""
        return getattr(self.target, name)

    def fingerprint(self) -> dict[str, Any]:
        """The target's, and `defenses`: settings, hashes of words and vectors."""
        own = self.target.fingerprint()
        self._fingerprint = own
        found = {**own, "defenses": self.stack.fingerprint(own)}
        if self._new:
            self._new = False
            self._prepared()
            if self._waits:
                self.close()
        return found

    def answer(self, questions: Sequence[Question], decoding: Decoding, seeds: Sequence[int]) -> list[Reply]:
        """See `safety.target.Target`; each reply's `trace` says which defence did what."""
        if self._latency is None or not self._latency.wants(questions):
            return self._watched(questions, decoding, seeds)
        self._prepared()
        return self._latency.timed(
            questions,
            lambda: self.target.answer(questions, decoding, seeds),
            lambda: self._watched(questions, decoding, seeds),
        )

    def untimed(self, questions: Sequence[Question], decoding: Decoding, seeds: Sequence[int]) -> list[Reply]:
        """The same without a look at the time."""
        return self._answered(questions, decoding, seeds)[0]

    def _watched(
        self, questions: Sequence[Question], decoding: Decoding, seeds: Sequence[int]
    ) -> list[Reply]:
        replies, seconds = self._answered(questions, decoding, seeds)
        if self._latency is not None:
            self._latency.spent(seconds)
        return replies

    def _answered(
        self, questions: Sequence[Question], decoding: Decoding, seeds: Sequence[int]
    ) -> tuple[list[Reply], dict[str, float]]:
        """Replies with their traces, and the seconds that the batch took, by defence."""
        from regap_patch.defenses.protocol import Turn

        turns = [
            Turn(number, question.text, question.text, question.picture, seed)
            for number, (question, seed) in enumerate(zip(questions, seeds, strict=True))
        ]
        answered = self.stack.answer(turns, self._prepared(), Generation(self.target, decoding))
        replies: list[Any] = answered.replies
        traced = [replace(reply, trace=trace) for reply, trace in zip(replies, answered.traces, strict=True)]
        return traced, answered.seconds

    def close(self) -> None:
        """The stack lets go of the model, and the target of its weights."""
        self.stack.close()
        self._model = None
        self.target.close()

    def _prepared(self) -> LoadedModel:
        """The model, for which the stack is prepared once."""
        if self._model is None:
            if self._fingerprint is None:
                self.fingerprint()
            model = LoadedModel(self.target, self._fingerprint or {})
            self.stack.prepare(model)
            self._model = model
        return self._model


@dataclass(frozen=True, slots=True)
class Untimed:
    """The same target for the parity gate, whose answers at batch 1 say nothing of the run's latency."""

    defended: DefendedTarget

    def fingerprint(self) -> dict[str, Any]:
        """The same."""
        return self.defended.fingerprint()

    def answer(self, questions: Sequence[Question], decoding: Decoding, seeds: Sequence[int]) -> list[Reply]:
        """The same, untimed."""
        return self.defended.untimed(questions, decoding, seeds)

    def close(self) -> None:
        """The run goes on with these weights."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The target's own generation, as a stack calls it."""

    target: Any
    decoding: Decoding

    def __call__(
        self, turns: Sequence[Turn], *, processors: Sequence[Any] = (), max_new_tokens: int | None = None
    ) -> list[AnyReply]:
        """One reply for each turn."""
        decoding = self.decoding
        if max_new_tokens is not None:
            decoding = replace(decoding, max_new_tokens=min(max_new_tokens, decoding.max_new_tokens))
        more = {"processors": processors} if processors else {}
        replies: list[AnyReply] = self.target.answer(
            _questions(turns), decoding, [turn.seed for turn in turns], **more
        )
        return replies


class LoadedModel:
    """A target as defences see it: `defenses.protocol.Model`.

    Args:
        target: of `safety.targets`.
        fingerprint: of the target.
    """

    def __init__(self, target: Any, fingerprint: Mapping[str, Any]) -> None:
        self._target, self.fingerprint = target, fingerprint
        self.module: Any = None
        self.tokenizer: Any = None
        self.host: Host | None = None
        if hasattr(target, "loaded"):
            from regap_patch.hosts.table import find_host, unwrapped

            model, self.tokenizer = target.loaded()
            self.module = unwrapped(model)
            self.host = find_host(self.module)[0]

    def inputs(self, turns: Sequence[Turn]) -> dict[str, Any]:
        """Arguments of the forward of the prompts."""
        made: dict[str, Any] = self._target.prefill(_questions(turns))
        return made

    def prompt(self, turn: Turn) -> str:
        """What the template makes of a turn."""
        return str(self._target.prompt(_questions([turn])[0]))

    def together(self, turns: Sequence[Turn]) -> list[list[int]]:
        """Places of the turns that one pass takes; behind an address all."""
        if self.module is None:
            return [list(range(len(turns)))]
        places: list[list[int]] = self._target.together(_questions(turns))
        return places

    def meaningless(self, turn: Turn, kind: str) -> bytes:
        """A picture that shows nothing, as large as the turn's own, as image modes make it."""
        from regap_patch.safety.image_modes import SIDE, meaningless

        size = (SIDE, SIDE)
        if turn.picture is not None:
            from PIL import Image

            with Image.open(BytesIO(turn.picture)) as picture:
                size = picture.size
        return meaningless(kind, size, Random(turn.seed))

    def reply(self, text: str) -> AnyReply:
        """An answer that no model gave."""
        from regap_patch.safety.target import Reply

        return Reply(text, 0, "stop")


def _questions(turns: Sequence[Turn]) -> list[Question]:
    from regap_patch.safety.target import Question

    return [Question(turn.told, turn.picture) for turn in turns]
