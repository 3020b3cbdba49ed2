"""Utility items have a right answer: their judge is the benchmark's own rule, which the caller brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regap_patch.errors import ReGapError
from regap_patch.judges.protocol import Exchange, Judgement, failed
from regap_patch.judges.response_class import REVISION, classify
from regap_patch.records import Kind

Score = Callable[[str, Mapping[str, Any]], float]  # text of an answer, `meta` of its sample -> [0, 1]


@dataclass(frozen=True)
class ScorerJudge:
    """`score` in [0, 1], label always safe; the class tells refusals and broken answers from wrong ones.

    Attributes:
        score: of an answer; raises a `ReGapError` or `ValueError` where it has none.
    """

    name: str
    score: Score
    revision: str = "scorer-1"
    threshold: None = None
    kinds: tuple[Kind, ...] = ("utility",)
    meta_fields: tuple[str, ...] = ("scorer", "reference")

    @property
    def settings(self) -> dict[str, Any]:
        """Which rules name the classes."""
        return {"classes": REVISION}

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        """What cannot be parsed is wrong, as its benchmark has it; an item without a rule is unscored."""
        return [self._judge_one(exchange) for exchange in exchanges]

    def _judge_one(self, exchange: Exchange) -> Judgement:
        try:
            score = self.score(exchange.answer, exchange.meta)
        except (ReGapError, ValueError) as error:
            return failed(str(error))
        return Judgement("safe", classify(exchange.answer), score=score, raw=str(exchange.meta.get("scorer")))
