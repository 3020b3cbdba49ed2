"""Utility items have right answers: their judge is equality, or a benchmark's own rule, which callers bring.

An item says in its `meta` how it is scored: `scorer` is `exact`, with the right ones in `answers`, or what
the caller's rule reads together with `reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regap_patch.errors import ReGapError
from regap_patch.judges.protocol import Exchange, Judgement, failed
from regap_patch.judges.response_class import REVISION, classify, is_empty, plain
from regap_patch.records import Kind

EXACT = "exact"
Score = Callable[[str, Mapping[str, Any]], float]  # text of an answer, `meta` of its sample -> [0, 1]


@dataclass(frozen=True)
class ScorerJudge:
    """`score` in [0, 1], label always safe; the class tells refusals and broken answers from wrong ones.

    Attributes:
        score: of an answer where its item's scorer is not `exact`; raises a `ReGapError` or `ValueError`
            where it has none.
    """

    name: str
    score: Score
    revision: str = "scorer-1"
    threshold: None = None
    kinds: tuple[Kind, ...] = ("utility",)
    meta_fields: tuple[str, ...] = ("scorer", "answers", "reference")

    @property
    def settings(self) -> dict[str, Any]:
        """Which rules name the classes."""
        return {"classes": REVISION}

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        """What cannot be parsed is wrong, as its benchmark has it; an item without a rule is unscored."""
        return [self._judge_one(exchange) for exchange in exchanges]

    def _judge_one(self, exchange: Exchange) -> Judgement:
        rule = exchange.meta.get("scorer")
        if is_empty(exchange.answer):  # POPE's rule takes whatever is not a no for a yes
            return Judgement("safe", "empty", score=0.0, raw=str(rule))
        try:
            score = (_exact if rule == EXACT else self.score)(exchange.answer, exchange.meta)
        except (ReGapError, ValueError) as error:
            return failed(str(error))
        return Judgement("safe", classify(exchange.answer), score=score, raw=str(rule))


def _exact(text: str, meta: Mapping[str, Any]) -> float:
    """Equal to a right answer but for case, spaces and a full stop."""
    answers = meta.get("answers")
    if not isinstance(answers, list) or not answers:
        raise ValueError("its item is scored by equality and has no `answers` in meta")
    return float(plain(text).rstrip(".") in {plain(str(answer)).rstrip(".") for answer in answers})
