"""Utility items have a right answer: their judge is the benchmark's own rule, as `llava.eval` has it.

A sample of kind utility says in its `meta` how it is scored: `scorer` (a key of `RULES`; without it `exact`),
`answers` (the right ones: `["yes"]`, `["B"]`, ten people's for TextVQA), and for ScienceQA `choices`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regap_patch.judges.protocol import Exchange, Judgement, failed
from regap_patch.judges.response_class import REVISION, classify, plain
from regap_patch.records import Kind

LETTERS = ("A", "B", "C", "D", "E")


@dataclass(frozen=True)
class ScorerJudge:
    """`score` in [0, 1], label always safe; the class tells refusals and broken answers from wrong ones."""

    name: str
    revision: str = "scorer-1"
    threshold: None = None
    kinds: tuple[Kind, ...] = ("utility",)
    meta_fields: tuple[str, ...] = ("scorer", "answers", "choices")

    @property
    def settings(self) -> dict[str, Any]:
        """Which rules name the classes."""
        return {"classes": REVISION}

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        """What cannot be parsed is wrong, as its benchmark has it; an item without a rule is unscored."""
        return [self._judge_one(exchange) for exchange in exchanges]

    def _judge_one(self, exchange: Exchange) -> Judgement:
        rule = str(exchange.meta.get("scorer") or "exact")
        answers = exchange.meta.get("answers")
        if rule not in RULES or not answers:
            fault = "its sample names no right answer" if rule in RULES else f"there is no rule {rule!r}"
            return failed(f"not scored: {fault}")
        try:
            score = RULES[rule](exchange.answer, [str(answer) for answer in answers], exchange.meta)
        except ValueError as error:
            return failed(f"not scored: {error}")
        return Judgement("safe", classify(exchange.answer), score=score, raw=rule)


def _exact(text: str, answers: list[str], meta: Mapping[str, Any]) -> float:
    """Equal to a right answer but for case, spaces and a full stop."""
    said = plain(text).rstrip(".")
    return float(said in {plain(answer).rstrip(".") for answer in answers})


def _pope(text: str, answers: list[str], meta: Mapping[str, Any]) -> float:
    """Yes unless no, not or No is a word of the first sentence."""
    from llava.eval.eval_pope import says_yes

    return float(says_yes(text) == (answers[0].lower() == "yes"))


def _mme(text: str, answers: list[str], meta: Mapping[str, Any]) -> float:
    """Yes or no in the first four characters."""
    from llava.eval.eval_mme import says

    return float(says(text) == answers[0].lower())


def _scienceqa(text: str, answers: list[str], meta: Mapping[str, Any]) -> float:
    """The letter of an option."""
    from llava.eval.eval_science_qa import parse_letter

    choices = meta.get("choices") or LETTERS
    letter = parse_letter(text, LETTERS)
    return float(letter == answers[0] and letter in LETTERS[: len(choices)])


def _textvqa(text: str, answers: list[str], meta: Mapping[str, Any]) -> float:
    """Soft accuracy over ten people's answers."""
    from llava.eval.m4c_evaluator import TextVQAAccuracyEvaluator

    return TextVQAAccuracyEvaluator().score({"pred_answer": text, "gt_answers": answers})


RULES: Mapping[str, Callable[[str, list[str], Mapping[str, Any]], float]] = {
    "exact": _exact,
    "pope": _pope,
    "mme": _mme,
    "scienceqa": _scienceqa,
    "textvqa": _textvqa,
}
