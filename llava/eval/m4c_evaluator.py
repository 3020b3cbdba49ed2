"""Accuracy of short free-form answers as the VQA challenge, TextVQA and ST-VQA define it.

The normalisation is that of VQA's evaluation server, in the variant that TextVQA is scored with; see
`EvalAIAnswerProcessor` for what that variant does otherwise than its comments say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from llava.eval.command_line import InputError

ANSWERS_OF_A_QUESTION = 10

_APOSTROPHES = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
    he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've
    mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't
    shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's
    something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've
    they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd
    where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
    wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _contractions() -> dict[str, str]:
    """A word that lacks one of its apostrophes -> the word with all of them."""
    table = {
        word[:at] + word[at + 1 :]: word
        for word in _APOSTROPHES.split()
        for at, letter in enumerate(word)
        if letter == "'"
    }
    # The one entry of the server's table that takes an apostrophe away.
    return {**table, "somebody'd": "somebodyd"}


def _numbers() -> dict[str, str]:
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    return {"none": "0", **{word: str(number) for number, word in enumerate(words)}}


class EvalAIAnswerProcessor:
    """An answer's text in the form in which answers are compared.

    Kept as it is scored everywhere, although it looks otherwise: every full stop goes unless a digit follows
    (`1.` loses it, `.5` keeps it), at most 32 of them; a possessive `'s` becomes a word of its own; all
    commas go, those between digits too.
    """

    CONTRACTIONS: ClassVar = _contractions()
    NUMBER_MAP: ClassVar = _numbers()
    ARTICLES = ("a", "an", "the")
    PUNCTUATIONS = (*';/[]"{}()=+', *"\\_-><@`,?!")
    PERIOD_STRIP = re.compile(r"\.(?!\d)")
    COMMA_STRIP = re.compile(r"(?<=\d),+(?=\d)")
    PERIODS = 32

    def word_tokenize(self, word: str) -> str:
        """Lower case, without commas and question marks, `'s` apart."""
        return word.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()

    def process_punctuation(self, in_text: str) -> str:
        """A mark that stands beside a space anywhere in the text goes everywhere; another becomes a space."""
        between_digits = self.COMMA_STRIP.search(in_text) is not None
        out_text = in_text
        for mark in self.PUNCTUATIONS:
            goes = between_digits or f"{mark} " in in_text or f" {mark}" in in_text
            out_text = out_text.replace(mark, "" if goes else " ")
        return self.PERIOD_STRIP.sub("", out_text, count=self.PERIODS)

    def process_digit_article(self, in_text: str) -> str:
        """Number words as digits, no articles, contractions with their apostrophes."""
        words = (self.NUMBER_MAP.get(word, word) for word in in_text.lower().split())
        return " ".join(self.CONTRACTIONS.get(word, word) for word in words if word not in self.ARTICLES)

    def __call__(self, item: str) -> str:
        """All three, one after the other."""
        text = self.word_tokenize(item).replace("\n", " ").replace("\t", " ").strip()
        return self.process_digit_article(self.process_punctuation(text))


class TextVQAAccuracyEvaluator:
    """Soft accuracy: an answer is right as far as the ten people who were asked agree with it."""

    def __init__(self) -> None:
        self.answer_processor = EvalAIAnswerProcessor()

    def answer_scores(self, raw_answers: Sequence[str]) -> dict[str, float]:
        """Score of each different answer: min(1, others who gave it / 3), averaged over leaving out each one.

        Raises:
            InputError: there are not ten.
        """
        if len(raw_answers) != ANSWERS_OF_A_QUESTION:
            raise InputError(
                f"A question has {len(raw_answers)} reference answers; TextVQA's accuracy is defined for "
                f"{ANSWERS_OF_A_QUESTION}."
            )
        answers = [self.answer_processor(answer) for answer in raw_answers]
        scores = {}
        for answer in dict.fromkeys(answers):
            others = (answers.count(answer) - (answer == left_out) for left_out in answers)
            scores[answer] = sum(min(1.0, agreeing / 3) for agreeing in others) / len(answers)
        return scores

    def score(self, entry: Mapping[str, Any]) -> float:
        """Of one `{"pred_answer", "gt_answers"}`."""
        return self.answer_scores(entry["gt_answers"]).get(self.answer_processor(entry["pred_answer"]), 0.0)

    def eval_pred_list(self, pred_list: Sequence[Mapping[str, Any]]) -> float:
        """Mean score, in [0, 1].

        Raises:
            InputError: nothing to score.
        """
        return _mean(self.score(entry) for entry in pred_list)


class STVQAAccuracyEvaluator:
    """Part of the answers that equal one of the references, both normalised."""

    def __init__(self) -> None:
        self.answer_processor = EvalAIAnswerProcessor()

    def eval_pred_list(self, pred_list: Sequence[Mapping[str, Any]]) -> float:
        """Mean over `{"pred_answer", "gt_answers"}`, in [0, 1].

        Raises:
            InputError: nothing to score.
        """
        process = self.answer_processor
        return _mean(
            float(process(entry["pred_answer"]) in {process(answer) for answer in entry["gt_answers"]})
            for entry in pred_list
        )


class STVQAANLSEvaluator:
    """Average normalised Levenshtein similarity; below one half an answer counts for nothing."""

    THRESHOLD = 0.5

    def get_anls(self, s1: str, s2: str) -> float:
        """Similarity of two texts, apart from case and white space around them; 1 if both are empty."""
        s1, s2 = s1.lower().strip(), s2.lower().strip()
        longest = max(len(s1), len(s2))
        similarity = 1 - levenshtein(s1, s2) / longest if longest else 1.0
        return similarity if similarity >= self.THRESHOLD else 0.0

    def eval_pred_list(self, pred_list: Sequence[Mapping[str, Any]]) -> float:
        """Mean over `{"pred_answer", "gt_answers"}` of the similarity to the nearest reference, in [0, 1].

        Raises:
            InputError: nothing to score.
        """
        return _mean(
            max(self.get_anls(entry["pred_answer"], answer) for answer in entry["gt_answers"])
            for entry in pred_list
        )


def levenshtein(s1: str, s2: str) -> int:
    """Fewest insertions, deletions and replacements of a character that turn `s1` into `s2`; O(len x len)."""
    row = list(range(len(s2) + 1))
    for number, left in enumerate(s1, 1):
        above, row[0] = row[0], number
        for at, right in enumerate(s2, 1):
            above, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, above + (left != right))
    return row[-1]


def _mean(scores: Iterable[float]) -> float:
    collected = list(scores)
    if not collected:
        raise InputError("There is no answer to score; pass a file of answers that is not empty.")
    return sum(collected) / len(collected)
