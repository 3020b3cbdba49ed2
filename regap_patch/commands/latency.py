"""What a defence stack costs: batches of the run itself, asked with and without it, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

BATCHES = 4  # of each kind that are asked twice
KINDS = ("with a picture", "text alone")


class Latency:
    """Times the first batches with a picture and the first of text alone; others are left alone.

    Of a pair now the one is first and now the other, so that neither gains by what the other has warmed.

    Args:
        defense: name of the stack.
    """

    def __init__(self, defense: str) -> None:
        self._defense = defense
        self._rows: dict[str, dict[str, Any]] = {}
        self._parts: dict[str, float] = {}

    def wants(self, questions: Sequence[Any]) -> bool:
        """Whether a batch is one to be timed."""
        return len(self._row(questions)["ratios"]) < BATCHES

    def timed(
        self, questions: Sequence[Any], plain: Callable[[], list[Any]], defended: Callable[[], list[Any]]
    ) -> list[Any]:
        """Ask in both ways, and give the defended answers.

        Args:
            questions: of the batch.
            plain: asks without the stack.
            defended: asks with it.
        """
        row = self._row(questions)
        if not any(other["ratios"] for other in self._rows.values()):
            plain()  # what comes first in a process is slow
        calls = [("none", plain), ("defended", defended)]
        found: dict[str, list[Any]] = {}
        seconds: dict[str, float] = {}
        for name, call in calls if len(row["ratios"]) % 2 else reversed(calls):
            started = time.perf_counter()
            found[name] = call()
            seconds[name] = time.perf_counter() - started
            row[f"seconds_{name}"] += seconds[name]
            row[f"tokens_{name}"] += sum(reply.num_tokens for reply in found[name])
        row["ratios"].append(round(seconds["defended"] / seconds["none"], 3))
        row["items"] += len(questions)
        return found["defended"]

    def spent(self, parts: dict[str, float]) -> None:
        """Add seconds of a defended batch, by defence; "model" is the generation itself."""
        for name, seconds in parts.items():
            self._parts[name] = self._parts.get(name, 0.0) + seconds

    def to_dict(self) -> dict[str, Any] | None:
        """As plain JSON values; None if nothing was timed."""
        rows = {kind: row for kind, row in self._rows.items() if row["ratios"]}
        if not rows:
            return None
        whole = sum(self._parts.values()) or 1.0
        shares = {name: round(seconds / whole, 4) for name, seconds in self._parts.items()}
        return {"defense": self._defense, "kinds": rows, "share_of_time": shares}

    def _row(self, questions: Sequence[Any]) -> dict[str, Any]:
        kind = KINDS[all(question.picture is None for question in questions)]
        counts = ("items", "tokens_none", "tokens_defended", "seconds_none", "seconds_defended")
        return self._rows.setdefault(kind, {"ratios": [], **dict.fromkeys(counts, 0)})
