"""A defence of your own: what names a forbidden thing is refused before the model hears of it."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

from regap_patch.defenses import Defense, Generate, Model, Notes, Reply, Stack, Turn


@dataclass
class Gate(Defense):
    stop: str = "forbidden"  # fields are settings: --defense gate --defense_args gate.stop=secret
    _model: Any = field(default=None, init=False, repr=False)
    name: ClassVar[str] = "gate"
    level: ClassVar = "prompt"  # prompt, answer, hidden or decoding
    cost: ClassVar[str] = "1 generation, none where it refuses"

    def prepare(self, model: Model) -> None:
        self._model = model

    def around(self, turns: list[Turn], generate: Generate, notes: Notes) -> list[Reply]:
        through = [turn for turn in turns if self.stop not in turn.asked]
        said = {turn.number: reply for turn, reply in zip(through, generate(through), strict=True)}
        for turn in turns:
            if turn.number not in said:
                notes.fired(turn)
                said[turn.number] = self._model.reply("I cannot help with that.")
        return [said[turn.number] for turn in turns]


def main() -> list[str]:
    """What it makes of two questions to a model that only repeats them."""
    reply = lambda text: SimpleNamespace(text=text, error=None)  # noqa: E731
    model = SimpleNamespace(host=None, reply=reply, together=lambda turns: [list(range(len(turns)))])
    stack = Stack([Gate()])
    stack.prepare(model)
    turns = [Turn(number, text, text) for number, text in enumerate(["Hello?", "A forbidden word?"])]
    answered = stack.answer(turns, model, lambda turns, **options: [reply(turn.told) for turn in turns])
    return [reply.text for reply in answered.replies]
