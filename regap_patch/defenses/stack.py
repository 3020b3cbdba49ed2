"""Several defences around one model: which may stand together, in which order, and what each did."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regap_patch.defenses.notes import Notes
from regap_patch.defenses.protocol import LEVELS, Defense, FittedItem, Generate, Model, Reply, Turn
from regap_patch.errors import ConfigError, DefenseError, UnsupportedModelError

INNER = ("hidden", "decoding")  # levels at which a turn is a row of a forward pass


@dataclass(frozen=True, slots=True)
class Answered:
    """Replies to a batch, and how they came about.

    Attributes:
        replies: one for each question.
        traces: of each question: `defenses` (name -> its notes), `generations`, `new_tokens`.
        seconds: of the batch, by defence, without what it called; "model" is the generation itself.
    """

    replies: list[Reply]
    traces: list[dict[str, Any]]
    seconds: dict[str, float]


class Stack:
    """Defences in their declared order: by level, and within one as they were named.

    Args:
        defenses: of different names.

    Attributes:
        defenses: from the outside in.

    Raises:
        ConfigError: one name twice, or two that own the same.
    """

    def __init__(self, defenses: Sequence[Defense]) -> None:
        each_once([defense.name for defense in defenses])
        owners: dict[str, Defense] = {}
        for defense in defenses:
            for thing in sorted(defense.owns):
                other = owners.setdefault(thing, defense)
                if other is not defense:
                    raise ConfigError(
                        f"The defences {other.name} and {defense.name} both own the {thing}, and only one "
                        f"can: run them one after the other, in two folders."
                    )
        self.defenses = sorted(defenses, key=lambda defense: LEVELS.index(defense.level))

    @property
    def name(self) -> str:
        """Names from the outside in, joined by "+"."""
        return "+".join(defense.name for defense in self.defenses)

    def fingerprint(self, target: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Of each defence; see `Defense.fingerprint`."""
        if target.get("kind") == "endpoint":
            blind = [defense.name for defense in self.defenses if defense.needs_layers]
            if blind:
                raise UnsupportedModelError(
                    f"The defence {blind[0]} changes what happens inside of a model, but the one behind "
                    f"{target.get('base_url')} is out of reach: take a checkpoint, or leave it out."
                )
        return [defense.fingerprint(target) for defense in self.defenses]

    def fitted_on(self) -> dict[str, list[FittedItem]]:
        """What each defence was fitted on."""
        return {defense.name: list(defense.fitted_on()) for defense in self.defenses}

    def prepare(self, model: Model) -> None:
        """Once, before the first batch.

        Raises:
            UnsupportedModelError: the model has no text-only forward.
            DefenseError: a defence does not suit this model.
        """
        check_text_only(model, self.name)
        for defense in self.defenses:
            defense.prepare(model)

    def close(self) -> None:
        """The model goes."""
        for defense in self.defenses:
            defense.close()

    def answer(self, turns: Sequence[Turn], model: Model, generate: Generate) -> Answered:
        """One reply for each turn.

        Args:
            turns: numbered from 0, each its own question.
            model: for which the stack was prepared.
            generate: the model's own.
        """
        notes = {defense.name: Notes(len(turns)) for defense in self.defenses}
        watch = _Watch([defense.name for defense in self.defenses])
        counted = _Counted(generate, len(turns))
        chain = watch.around("model", counted)
        inner = [defense for defense in self.defenses if defense.level in INNER]
        outer = [defense for defense in self.defenses if defense.level not in INNER]
        for defense in reversed(inner):
            chain = watch.around(defense.name, _surrounded(defense, chain, notes[defense.name]))
        chain = _in_passes(chain, model)
        for defense in reversed(outer):
            chain = watch.around(defense.name, _surrounded(defense, chain, notes[defense.name]))
        replies = chain(turns)
        traces = [
            {
                "defenses": {name: rows.rows[number] for name, rows in notes.items()},
                "generations": counted.generations[number],
                "new_tokens": counted.new_tokens[number],
            }
            for number in range(len(turns))
        ]
        return Answered(replies, traces, watch.seconds)


def check_text_only(model: Model, name: str) -> None:
    """That a model answers text alone, which defences compare with.

    Args:
        model: loaded.
        name: of the defences.

    Raises:
        UnsupportedModelError: it does not.
    """
    if model.host is not None and not model.host.text_only:
        raise UnsupportedModelError(
            f"The defences {name} compare with text alone, but {type(model.module).__name__} (host "
            f"{model.host.name}) answers nothing without a picture: ask it without --defense."
        )


def each_once(names: Sequence[str]) -> None:
    """Make sure that no name comes twice.

    Raises:
        ConfigError: one does.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"The defence {twice[0]} was named twice in one stack: name each once.")


class _Counted:
    """The model's own generation, and what each question had of it."""

    def __init__(self, generate: Generate, count: int) -> None:
        self._generate = generate
        self.generations, self.new_tokens = [0] * count, [0] * count

    def __call__(self, turns: Sequence[Turn], **options: Any) -> list[Reply]:
        replies = self._generate(turns, **options) if turns else []
        for turn, reply in zip(turns, replies, strict=True):
            self.generations[turn.number] += 1
            self.new_tokens[turn.number] += int(getattr(reply, "num_tokens", 0))
        return replies


class _Watch:
    """Seconds of each layer of the onion, without those of the layers inside of it."""

    def __init__(self, names: Sequence[str]) -> None:
        self.seconds = dict.fromkeys([*names, "model"], 0.0)
        self._inside = [0.0]

    def around(self, name: str, call: Generate) -> Generate:
        def timed(turns: Sequence[Turn], **options: Any) -> list[Reply]:
            self._inside.append(0.0)
            started = time.perf_counter()
            try:
                return call(turns, **options)
            finally:
                whole = time.perf_counter() - started
                self.seconds[name] += whole - self._inside.pop()
                self._inside[-1] += whole

        return timed


def _surrounded(defense: Defense, inwards: Generate, notes: Notes) -> Generate:
    """A defence as the next one outwards calls it; what that one wanted holds for all that this one asks."""

    def call(
        turns: Sequence[Turn], *, processors: Sequence[Any] = (), max_new_tokens: int | None = None
    ) -> list[Reply]:
        outer, limit = tuple(processors), max_new_tokens

        def generate(
            turns: Sequence[Turn], *, processors: Sequence[Any] = (), max_new_tokens: int | None = None
        ) -> list[Reply]:
            limits = [one for one in (limit, max_new_tokens) if one is not None]
            wanted = min(limits, default=None)
            return inwards(turns, processors=(*outer, *processors), max_new_tokens=wanted)

        replies = defense.around(turns, generate, notes) if turns else []
        if len(replies) != len(turns):
            raise DefenseError(
                f"The defence {defense.name} gave {len(replies)} replies to {len(turns)} turns: its `around` "
                f"must give one for each, in their order."
            )
        return replies

    return call


def _in_passes(inwards: Generate, model: Model) -> Generate:
    """Turns that one forward pass takes, pass after pass; replies in the order of the turns."""

    def call(turns: Sequence[Turn], **options: Any) -> list[Reply]:
        found: dict[int, Reply] = {}
        for places in model.together(turns):
            replies = inwards([turns[place] for place in places], **options)
            found |= dict(zip(places, replies, strict=True))
        return [found[place] for place in range(len(turns))]

    return call
