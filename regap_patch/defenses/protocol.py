"""What a defence is: something that stands around the generation of a loaded model.

A stack is an onion. Each defence gets `generate`, the next one inwards, and calls it never, once or several
times. From the outside in, whatever the order in which the names were given:

| level    | what it does around `generate`                              | turns that it gets      |
|----------|-------------------------------------------------------------|-------------------------|
| prompt   | rewrites what the model is told                             | all of a batch          |
| answer   | reads the answer, asks again, gives another                 | all of a batch          |
| hidden   | hooks decoder layers while `generate` runs                  | those of a forward pass |
| decoding | passes `processors=` that change the scores of a next token | those of a forward pass |

So a prompt-level defence's words are in all that an answer-level one asks again with `turn.told`, hooks are
active in each of its steps, and a processor sees the scores that the hooks have left. At levels hidden and
decoding row b of every tensor is `turns[b]`, prompts are padded on the left (the last row of a prefill is
position -1), and turns with and without a picture may be mixed. One at level decoding may ask its turns
several times side by side; to the hooks around it row b is then `turns[b % len(turns)]`.

A defence is a dataclass. Its fields are its settings: they come from `--defense_args NAME.FIELD=TEXT`, are in
the run's manifest and in every answer's key. What it finds out about a model it keeps in `field(init=False,
repr=False)`.

Life of a defence: `fingerprint` (without weights; refuses what does not belong to this target), `prepare`
(once, with the model), `around` (each batch), `close` (the model goes). `around` leaves the model as it
found it: with hooks under `with`, nothing else is needed for that.
"""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args

if TYPE_CHECKING:
    from regap_patch.defenses.notes import Notes
    from regap_patch.hosts.host import Host

Level = Literal["prompt", "answer", "hidden", "decoding"]
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model is told in one conversation of one turn.

    Attributes:
        number: of the question in its batch; several steps may ask about one.
        asked: the user's own words, which no defence changes.
        told: what the model gets, without a placeholder for the picture.
        picture: bytes of a picture file; None for text alone.
        seed: of sampling.
    """

    number: int
    asked: str
    told: str
    picture: bytes | None = None
    seed: int = 0

    def telling(self, text: str) -> Turn:
        """The same with other words."""
        return dataclasses.replace(self, told=text)

    def drawing(self, step: str) -> Turn:
        """The same with random numbers of its own, for a further step: its draws are not those of another."""
        made = hashlib.sha256(f"{self.seed}\0{step}".encode()).digest()
        return dataclasses.replace(self, seed=int.from_bytes(made[:8], "big") >> 1)

    def showing(self, picture: bytes | None) -> Turn:
        """The same with another picture, or with none: no placeholder and no newline is left of it."""
        return dataclasses.replace(self, picture=picture)


class Reply(Protocol):
    """What the model said. Of an answer that failed `error` says why, and `text` is empty."""

    @property
    def text(self) -> str:
        """The answer."""

    @property
    def error(self) -> str | None:
        """None for an answer."""


class Generate(Protocol):
    """The next defence inwards, or the model itself."""

    def __call__(
        self, turns: Sequence[Turn], *, processors: Sequence[Any] = (), max_new_tokens: int | None = None
    ) -> list[Reply]:
        """One reply for each turn.

        Args:
            turns: any number, none included.
            processors: called as transformers' `LogitsProcessor` with ids (B, T) and scores (B, V); ids may
                lack the prompt, their last column is the newest token. They come before those of sampling.
                Levels hidden and decoding only: elsewhere turns may be asked in several passes.
            max_new_tokens: None for the run's.
        """


class Model(Protocol):
    """A loaded target as defences see it.

    Attributes:
        module: the model in evaluation mode; None behind an address.
        host: its row in the table of hosts; None behind an address.
        tokenizer: None behind an address.
        fingerprint: of the target: `files` (SHA-256 of each), `template_text`, `dtype`, ...
    """

    @property
    def module(self) -> Any: ...  # noqa: D102
    @property
    def host(self) -> Host | None: ...  # noqa: D102
    @property
    def tokenizer(self) -> Any: ...  # noqa: D102
    @property
    def fingerprint(self) -> Mapping[str, Any]: ...  # noqa: D102

    def inputs(self, turns: Sequence[Turn]) -> dict[str, Any]:
        """Arguments of `module.forward` for the prompts of these turns, padded on the left.

        Turns must be such that one pass takes them (`together`). `attention_mask` (B, L) is among them.
        """

    def prompt(self, turn: Turn) -> str:
        """The text that this turn becomes, template, placeholder of the picture and all."""

    def together(self, turns: Sequence[Turn]) -> list[list[int]]:
        """Places of the turns that one forward pass takes."""

    def meaningless(self, turn: Turn, kind: str) -> bytes:
        """A picture that shows nothing (blank, black, grey or noise), as large as the turn's own."""

    def reply(self, text: str) -> Reply:
        """An answer that no model gave."""


@dataclass(frozen=True, slots=True)
class FittedItem:
    """What a defence was fitted on, so that it is not asked.

    Attributes:
        uid: of a benchmark's item; "" for what comes from elsewhere.
        text: its words.
        picture_sha256: of the picture it was fitted with; None where the words alone were.
    """

    uid: str
    text: str
    picture_sha256: str | None = None


class Defense(ABC):
    """Base of all defences; see this module's text.

    Attributes:
        name: as in `--defense`.
        level: where in the onion it stands.
        owns: what no second defence of a stack may own: "decoding", ...
        needs_layers: whether it needs the model's insides, so that a server is refused.
        cost: what an answer costs, for people: "2 to 4 generations".
        source: paper, and where this differs.
    """

    name: ClassVar[str]
    level: ClassVar[Level]
    owns: ClassVar[frozenset[str]] = frozenset()
    needs_layers: ClassVar[bool] = False
    cost: ClassVar[str] = "1 generation"
    source: ClassVar[str] = ""

    def fingerprint(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """All of it that may change an answer, as plain JSON values; of files their hash, never their path.

        Args:
            target: the target's own.

        Raises:
            DefenseError: it was made for another target.
        """
        settings = {field.name: getattr(self, field.name) for field in _settings(self)}
        return {"name": self.name, **{name: plain(value) for name, value in settings.items()}}

    def fitted_on(self) -> Iterable[FittedItem]:
        """Items that the evaluation has to leave out."""
        return ()

    def prepare(self, model: Model) -> None:  # noqa: B027 (most need nothing)
        """Once, before the first batch: find layers, load vectors.

        Raises:
            DefenseError: it does not suit this model.
        """

    @abstractmethod
    def around(self, turns: Sequence[Turn], generate: Generate, notes: Notes) -> list[Reply]:
        """One reply for each turn, by way of `generate`.

        Args:
            turns: what is asked.
            generate: the next defence inwards, or the model.
            notes: where it says on which turns it acted: `notes.fired(turn, ...)`.
        """

    def close(self) -> None:  # noqa: B027
        """The model goes: keep nothing of it."""


def _settings(defense: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(defense) if field.init]


def plain(value: Any) -> Any:
    """A setting as a JSON value; of a file the hash of what is in it."""
    if isinstance(value, Path):
        return hashlib.sha256(value.read_bytes()).hexdigest()
    return list(value) if isinstance(value, tuple) else value
