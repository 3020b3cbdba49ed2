"""The columns of a study's tables: which words and numbers each may hold."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

MAIN = "main"  # the variant that is the protocol's own setting
STAGES = ("llm", "stage1", "stage2")  # before any image, after stage 1, after stage 2
TEXT_CONDITIONS = ("none", "words")
IMAGE_CONDITIONS = ("blank", "black", "grey", "noise", "irrelevant", "real")
SHARES = (
    *("unsafe_rate", "refusal_rate", "incoherent_rate", "over_refusal_rate", "benign_compliance"),
    *("refusal_opener_prob", "vqa_accuracy"),
)
ASKED = SHARES[:-1]  # measured in every condition, so that a row of theirs names one
GAPS = ("centroid_l2", "pairwise_sq", "image_norm", "text_norm", "norm_ratio", "mir")
METRICS = (*SHARES, "caption_loss", *GAPS)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def _one_of(*words: str) -> tuple[Callable[[str], str], str]:
    def convert(cell: str) -> str:
        if cell not in words:
            raise ValueError
        return cell

    return convert, "one of " + ", ".join(word or "nothing" for word in words)


def _name(cell: str) -> str:
    if not _NAME.fullmatch(cell):
        raise ValueError
    return cell


def _number(cell: str) -> float:
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError
    return value


def _size(cell: str) -> float:
    value = _number(cell)
    if value < 0:
        raise ValueError
    return value


def _whole(cell: str) -> int:
    if not re.fullmatch(r"[0-9]+", cell):
        raise ValueError
    return int(cell)


def _relative(cell: str) -> str:
    path = PurePosixPath(cell)
    if not cell or path.is_absolute() or ".." in path.parts or "\\" in cell:
        raise ValueError
    return cell


def _or_blank(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda cell: None if cell == "" else convert(cell)


_SIZE_OR_BLANK = (_or_blank(_size), "a number of at least 0, or nothing")
COLUMNS: dict[str, tuple[Callable[[str], Any], str]] = {  # how to read a cell, and what it has to be
    "variant": (_name, "a name of letters, digits and _ . + -"),
    "llm": (_whole, "the seed of a language model, a whole number"),
    "arm": (lambda cell: cell and _name(cell), "a name of letters, digits and _ . + -, or nothing"),
    "stage": _one_of(*STAGES),
    "condition": _one_of(*TEXT_CONDITIONS, *IMAGE_CONDITIONS, ""),
    "metric": _one_of(*METRICS),
    "value": (_number, "a finite number"),
    "stderr": _SIZE_OR_BLANK,
    "count": (_or_blank(_whole), "a whole number, or nothing"),
    "n": (_or_blank(_whole), "a whole number, or nothing"),
    "source": (_relative, "a path relative to the study's folder"),
    "step": (_whole, "a whole number"),
    "centroid_l2": (_size, "a number of at least 0"),
    "pairwise_sq": _SIZE_OR_BLANK,
    "image_norm": _SIZE_OR_BLANK,
    "text_norm": _SIZE_OR_BLANK,
    "loss_lm": (_or_blank(_number), "a finite number, or nothing"),
}
