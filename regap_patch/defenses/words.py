"""The words that a defence says to a model: ours, the published ones of the user's copy, or the user's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regap_patch.errors import ConfigError, DefenseError
from regap_patch.fixed_prompt import FixedPrompt

SLOT = "{}"
BETWEEN = "---"  # the line between the texts of a file that holds several


@dataclass(frozen=True, slots=True)
class Words:
    """Texts with `{}` where something is put in.

    Attributes:
        label: whose they are.
        texts: in the order of the defence's steps.
    """

    label: Literal["own", "published", "given"]
    texts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: no text, so that nothing of others is copied into a run."""
        return {
            "label": self.label,
            "sha256": [hashlib.sha256(text.encode()).hexdigest() for text in self.texts],
        }


def words_of(name: str, prompts: Sequence[FixedPrompt], published: Path | None, given: Path | None) -> Words:
    """The words of a defence.

    Args:
        name: of the defence.
        prompts: of its steps.
        published: file that holds the published text of each.
        given: text file with the user's own, a line `---` between two.

    Raises:
        ConfigError: both files.
        DefenseError: a file that cannot be read, or holds other texts.
    """
    if published is not None and given is not None:
        raise ConfigError(
            f"The defence {name} was given published={published} and words={given}: choose the published "
            f"words or your own."
        )
    if published is not None:
        return Words("published", _published(name, prompts, published))
    if given is not None:
        return Words("given", _given(name, prompts, given))
    return Words("own", tuple(prompt.own for prompt in prompts))


def filled(text: str, *parts: str) -> str:
    """A text with parts in its slots, in their order; braces within the parts stay as they are."""
    pieces = text.split(SLOT)
    return "".join(piece + part for piece, part in zip(pieces, (*parts, ""), strict=True))


def _published(name: str, prompts: Sequence[FixedPrompt], file: Path) -> tuple[str, ...]:
    try:
        found = [prompt.published_in(file) for prompt in prompts]
    except OSError as error:
        raise DefenseError(f"{name} was to read its words from {file}, but that failed: {error}.") from error
    for prompt, text in zip(prompts, found, strict=True):
        if text is None:
            raise DefenseError(
                f"{name} was to speak the published words {prompt.name} ({prompt.characters} characters, "
                f"SHA-256 {prompt.sha256}...), but {file} does not hold them: name the publisher's own file, "
                f"or give other words as words=FILE."
            )
    return tuple(text for text in found if text is not None)


def _given(name: str, prompts: Sequence[FixedPrompt], file: Path) -> tuple[str, ...]:
    try:
        text = file.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DefenseError(f"{name} was to read its words from {file}, but that failed: {error}.") from error
    texts = tuple(text.split(f"\n{BETWEEN}\n"))
    slots = [prompt.own.count(SLOT) for prompt in prompts]
    if [part.count(SLOT) for part in texts] != slots:
        raise DefenseError(
            f"{name} needs {len(slots)} texts with {' and '.join(map(str, slots))} times {SLOT}, but {file} "
            f"holds {len(texts)} with {' and '.join(str(part.count(SLOT)) for part in texts)}: write one "
            f"after the other, with a line {BETWEEN} between two."
        )
    return texts
