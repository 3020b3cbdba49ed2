"""What defences say about each answer, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regap_patch.defenses.protocol import Turn


class Notes:
    """One defence's notes on a batch.

    Args:
        count: questions in the batch.

    Attributes:
        rows: of each question plain JSON values, `fired` first.
    """

    def __init__(self, count: int) -> None:
        self.rows: list[dict[str, Any]] = [{"fired": False} for _ in range(count)]

    def fired(self, turn: Turn, **details: Any) -> None:
        """It changed what this question's answer is made from."""
        self.rows[turn.number] |= {"fired": True, **details}

    def say(self, turn: Turn, **details: Any) -> None:
        """Something about this question, whether or not the defence acted; a later word takes its place."""
        self.rows[turn.number] |= details

    def spent(self, turns: Sequence[Turn], **counts: int) -> None:
        """What each of these turns cost beside generations: `prefills=2`. Counts add up."""
        for turn in turns:
            row = self.rows[turn.number]
            for name, count in counts.items():
                row[name] = row.get(name, 0) + count
