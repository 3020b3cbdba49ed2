"""A model that answers from a script, for defences that need no weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from regap_patch.defenses.protocol import Turn
from regap_patch.safety.target import Reply


class ScriptedModel:
    """Says `script(turn)`, and remembers every call.

    Attributes:
        calls: turns, processors and limit of each call, in order.
    """

    module = host = tokenizer = None
    fingerprint = {"kind": "script"}  # noqa: RUF012

    def __init__(self, script: Callable[[Turn], str | Reply]) -> None:
        self._script = script
        self.calls: list[tuple[list[Turn], tuple[Any, ...], int | None]] = []

    def together(self, turns: Sequence[Turn]) -> list[list[int]]:
        """With pictures and without apart, as processors of transformers want it."""
        places = range(len(turns))
        kinds = ([place for place in places if (turns[place].picture is None) == blind] for blind in (0, 1))
        return [kind for kind in kinds if kind]

    def reply(self, text: str) -> Reply:
        return Reply(text, 0, "stop")

    def generate(
        self, turns: Sequence[Turn], *, processors: Sequence[Any] = (), max_new_tokens: int | None = None
    ) -> list[Reply]:
        self.calls.append((list(turns), tuple(processors), max_new_tokens))
        said = [self._script(turn) for turn in turns]
        return [one if isinstance(one, Reply) else Reply(one, 3, "stop") for one in said]

    @property
    def told(self) -> list[str]:
        """All that it was told, in order."""
        return [turn.told for turns, _, _ in self.calls for turn in turns]


def turns_of(*asked: str, pictures: Sequence[bytes | None] = ()) -> list[Turn]:
    shown = [*pictures, *[None] * (len(asked) - len(pictures))]
    return [Turn(number, text, text, shown[number]) for number, text in enumerate(asked)]
