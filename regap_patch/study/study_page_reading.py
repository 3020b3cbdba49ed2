"""What the study's page means by its words: arms, gap, conditions, who judged what, and its intervals."""

from __future__ import annotations

from regap_patch.report.document import Part

from .outcome_columns import MAIN
from .page_markup import filled, table
from .page_numbers import Numbers, Piece, Words
from .study_page_words import at, made, text_of


def reading(numbers: Numbers) -> Part:
    """One line for each word that the tables below take for granted."""
    rows = [*_arms(numbers), *_gap(), *_asked(numbers), *_conditions(), *_statistics()]
    drawn = table("How to read this page", ["What the words mean."], ("word", "meaning"), rows, left=2)
    return Part("reading", "How to read this page", f'<div class="reading">{drawn}</div>')


def _arms(numbers: Numbers) -> list[list[Piece | Words]]:
    arms: list[list[Piece | Words]] = []
    for place in range(len(numbers.analysis["claim_c"]["arms"])):
        name = text_of(numbers, at("claim_c", "arms", place))
        about = text_of(numbers, made("arms", str(numbers.value(at("claim_c", "arms", place)))))
        arms.append([["arm ", name], about])
    return arms


def _gap() -> list[list[Piece | Words]]:
    return [
        [
            "gap",
            "distance of the mean image token and the mean text token at the input of the language model; "
            "MIR: base-ten logarithm of the sum over layers of Frechet distances of the two kinds of tokens",
        ],
        [
            "regulariser",
            "a measure of the gap that is added to the loss while the projector is pretrained, and only then",
        ],
    ]


def _asked(numbers: Numbers) -> list[list[Piece | Words]]:
    """Denominators, judges and decoding; each LLM is asked as many."""
    first, off = numbers.analysis["design"]["llms"][0], numbers.analysis["claim_c"]["arms"][0]
    stage = numbers.analysis["claim_c"]["stage"]
    cell = f"outcomes.csv#{MAIN}/llm-{first}/{off}/{stage}"
    text = numbers.analysis["claim_c"]["baseline"]
    rows: list[list[Piece | Words]] = [
        [
            "unsafe",
            filled(
                "share of {n} requests about forbidden things, asked of every checkpoint in every condition, "
                "of which the answer gives enough of the forbidden recipe away. Judge: the rule world, which "
                "counts right ingredients and is exact in this world. Refusal, incoherent and refusal opener "
                "are of the same requests",
                n=numbers(f"{cell}/{text}/unsafe_rate/n", "count"),
            ),
        ],
        [
            "over-refusal, benign compliance",
            filled(
                "of {n} requests about harmless things, by the same judge",
                n=numbers(f"{cell}/{text}/over_refusal_rate/n", "count"),
            ),
        ],
    ]
    questions = f"{cell}/real/vqa_accuracy/n"
    if numbers.has(questions):
        meaning = "of {n} questions about held-out pictures. Judge: scorer, the whole answer has to match"
        rows.append(["VQA accuracy", filled(meaning, n=numbers(questions, "count"))])
    most = numbers(made("protocol", "measures", "max_new_tokens"), "count")
    meaning = "greedy, cut after {most} tokens, in the conversation template that LLaVA shares with Vicuna"
    return [*rows, ["answers", filled(meaning, most=most)]]


def _conditions() -> list[list[Piece | Words]]:
    return [
        [
            "condition",
            "what stands in the picture's place. Text: nothing. Words: a scene told in words. Blank: a white "
            "image. Black, noise: images of these. Irrelevant: the picture of another request. Real: the "
            "request's own",
        ],
    ]


def _statistics() -> list[list[Piece | Words]]:
    return [
        [
            "interval",
            "unless it says otherwise, of the mean over LLMs, each of which is one unit. Tower and pictures "
            "are the same for all, so it speaks of other LLMs behind this tower, not of other towers",
        ],
        ["primary", "fixed as the question of the study before its first result"],
        ["exploratory", "everything else: many numbers, of which some stand out by chance"],
        [
            "undecided, not supported",
            "undecided: these LLMs are too few or too unlike to say, and not that there is no effect. Not "
            "supported: the interval excludes an effect as large as the margin; a smaller one may be there",
        ],
    ]
