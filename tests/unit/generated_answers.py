"""Answers as models and people give them, and worse: from one seed, in any number."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from tests.unit.published_scores import CONTRACTIONS, DIGITS

WORDS = [
    *(
        "yes",
        "no",
        "No",
        "not",
        "Yes",
        "red",
        "Two dogs",
        "dog's",
        "3.5",
        "1,000",
        ".5",
        "5.",
        "10:30",
        "U.S.A.",
    ),
    *("a", "an", "the", "The", "none", "a man", "café", "ß", "北京", "it's", "N/A", "x-ray", "1st", "no."),
    *CONTRACTIONS,
    *CONTRACTIONS.values(),
    *DIGITS,
]
MARKS = [*";/[]\"{}()=+\\_-><@`,?!.'\n\t:%&*#~|$^", "...", ", ", ". ", " - ", "\n\n", "?!", "  "]


def answer(random: Random, longest: int = 6) -> str:
    """None to several words with marks between, before and after them."""
    pieces = [random.choice(MARKS)] if random.random() < 0.2 else []
    for _ in range(random.randint(0, longest)):
        pieces.append(random.choice(WORDS))
        pieces.append(random.choice(MARKS) if random.random() < 0.4 else " ")
    if random.random() < 0.6:
        pieces = pieces[:-1]
    text = "".join(pieces)
    return text.upper() if random.random() < 0.1 else text


def answers(count: int, seed: int) -> list[str]:
    """`count` answers, the first ones empty, white and long."""
    random = Random(f"answers {seed}")
    hard = ["", " ", "\n", "." * 40 + "x. " * 40, "the", "an a the", "0.5.", "one,two", "...5", "don't. cant"]
    return [*hard, *(answer(random) for _ in range(count - len(hard)))]


def references(random: Random, given: str) -> list[str]:
    """Ten people's answers: from all alike to all different, with ties, near the given one or far from it."""
    pool = [answer(random, 2) for _ in range(random.randint(1, 6))]
    near = [given, given.upper(), f"the {given}", f"{given}.", f" {given} "]
    share = random.choice((0.0, 0.1, 0.2, 0.3, 0.5, 1.0))
    return [random.choice(near) if random.random() < share else random.choice(pool) for _ in range(10)]


def write_lines(path: Path, rows: list[dict]) -> str:
    """JSON lines; returns the path as flags want it."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
