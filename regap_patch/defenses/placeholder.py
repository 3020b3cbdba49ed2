"""What a picture adds to a prompt's text: its placeholder with the newline behind it, and nothing else.

Text alone is compared with text beside a picture. A prompt from which only the placeholder was cut, or whose
template says something else without a picture, would move the vectors by that difference, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regap_patch.errors import DefenseError

if TYPE_CHECKING:
    from regap_patch.defenses.protocol import Model, Turn

QUESTION = "What is this?"


def placeholder_of(model: Model, turn: Turn) -> str:
    """What the prompt of a turn with a picture has and that of its words alone has not.

    Raises:
        DefenseError: they differ in anything else, or the placeholder's newline stays behind.
    """
    return cut_between(model.prompt(turn), model.prompt(turn.showing(None)))


def cut_between(seeing: str, alone: str) -> str:
    """The one piece of `seeing` without which it is `alone`.

    Raises:
        DefenseError: there is no such piece, or a newline that stood behind it is still in `alone`.
    """
    start = _shared(seeing, alone)
    end = _shared(seeing[start:][::-1], alone[start:][::-1])
    piece = seeing[start : len(seeing) - end]
    if start + end != len(alone) or not piece.strip():
        raise DefenseError(
            f"Text alone was to be compared with text beside a picture, but their prompts differ in more "
            f"than the picture ({seeing!r} and {alone!r}): take a template that only leaves it out."
        )
    if alone[start:].lstrip(" ").startswith("\n") and "\n" not in piece:
        raise DefenseError(
            f"Text alone was to be compared with text beside a picture, but the newline behind the picture "
            f"stays in the prompt without one ({alone!r}): take a template that leaves out both."
        )
    return piece


def _shared(one: str, other: str) -> int:
    """Characters that both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
