"""The page's exploratory tables: every other arm and variant, and the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regap_patch.report.document import Part, folded
from regap_patch.report.formats import NONE

from .outcome_columns import GAPS, IMAGE_CONDITIONS, STAGES, TEXT_CONDITIONS
from .page_markup import estimate, filled, joined, table
from .page_numbers import Numbers, Piece, Words
from .study_page_words import (
    METRICS,
    at,
    condition_in_words,
    dense,
    difference,
    level_of,
    made,
    style_of,
    text_of,
)
from .study_page_words import STAGES as STAGE_WORDS

_CHANGES = {  # tables of changes, and their metrics
    "Unsafe answers, in percentage points": ("unsafe_rate",),
    "Refusal opener, in percentage points": ("refusal_opener_prob",),
    "Utility, in percentage points and nats per token, and gap": ("vqa_accuracy", "caption_loss", *GAPS),
}


def arms(numbers: Numbers) -> Part:
    """Every arm and variant against the arm off of the same LLMs."""
    entries = numbers.analysis["arms"]
    rows = [_arm(numbers, place, entry) for place, entry in enumerate(entries)]
    caption = filled(
        "All exploratory. The primary outcome's difference against the named arm on the same LLMs, in "
        "percentage points, with its {level} t interval. Intervals of so few "
        "LLMs say next to nothing, and of so many differences some fall below any p.",
        level=level_of(numbers),
    )
    head = ("variant", "arm", "what it does", "against", "standing", "LLMs", "difference", "interval", "p")
    drawn = f'<div class="reading">{table("Arms and variants", caption, head, rows, left=5)}</div>'
    changes = "".join(
        folded(f"Changes {STAGE_WORDS[stage]}", _changes(numbers, stage)) for stage in STAGES[1:]
    )
    return Part(
        "arms", "Exploratory: other arms and variants", drawn + _gates(numbers) + changes + _missing(numbers)
    )


def _name(numbers: Numbers, place: int) -> list[Piece | Words]:
    return [text_of(numbers, at("arms", place, "variant")), text_of(numbers, at("arms", place, "arm"))]


def _arm(numbers: Numbers, place: int, entry: Mapping[str, Any]) -> list[Piece | Words]:
    about = made("arms", entry["arm"])
    against = joined(text_of(numbers, at("arms", place, "against", part)) for part in ("variant", "arm"))
    return [
        *_name(numbers, place),
        text_of(numbers, about) if numbers.has(about) else NONE,
        against,
        text_of(numbers, at("arms", place, "label")),
        numbers(at("arms", place, "contrast", "n"), "count"),
        *difference(numbers, at("arms", place, "contrast"), "points"),
    ]


def _gates(numbers: Numbers) -> str:
    """The gate in each variant: is there anything to lower?"""
    found = [(place, entry) for place, entry in enumerate(numbers.analysis["arms"]) if "gate" in entry]
    if not found:
        return ""
    rows = [
        [
            text_of(numbers, at("arms", place, "variant")),
            f"image minus {over}",
            numbers(at("arms", place, "gate", f"image_minus_{over}", "n"), "count"),
            *difference(numbers, at("arms", place, "gate", f"image_minus_{over}"), "points"),
        ]
        for place, _ in found
        for over in ("words", "text")
    ]
    caption = [
        "The gate's differences in each variant, without a regulariser, in percentage points, with ",
        *(level_of(numbers), " t intervals. Exploratory."),
    ]
    return table(
        "The gate in variants",
        caption,
        ("variant", "difference", "LLMs", "mean", "interval", "p"),
        rows,
        left=2,
    )


def _changes(numbers: Numbers, stage: str) -> str:
    """Mean change of each number, an arm a row: of answers, then of what was measured beside them."""
    return "".join(dense(_change_table(numbers, stage, what, metrics)) for what, metrics in _CHANGES.items())


def _change_table(numbers: Numbers, stage: str, what: str, metrics: Sequence[str]) -> str:
    entries = numbers.analysis["arms"]
    places = [
        {
            (found["metric"], found["condition"]): number
            for number, found in enumerate(entry["differences"])
            if found["stage"] == stage and found["metric"] in metrics
        }
        for entry in entries
    ]
    columns = sorted({column for found in places for column in found}, key=_order)
    rows = []
    for place, found in enumerate(places):
        sources = [
            at("arms", place, "differences", found[column]) if column in found else "" for column in columns
        ]
        cells = [
            estimate(numbers, source, style_of(metric, change=True)) if source else NONE
            for source, (metric, _) in zip(sources, columns, strict=True)
        ]
        rows.append([*_name(numbers, place), *cells])
    titles = [
        f"{METRICS[metric]}, {condition_in_words(mode)}" if mode else METRICS[metric]
        for metric, mode in columns
    ]
    caption = [f"{what}: change against the arm named above, mean over its LLMs (their number stands there; "]
    caption += ["what one lacks, below), with ", level_of(numbers), " t intervals. Exploratory."]
    return table(f"{what} {STAGE_WORDS[stage]}", caption, ("variant", "arm", *titles), rows, left=2)


def _order(column: tuple[str, str]) -> tuple[int, int]:
    return tuple(METRICS).index(column[0]), ("", *TEXT_CONDITIONS, *IMAGE_CONDITIONS).index(column[1])


def _missing(numbers: Numbers) -> str:
    """What an arm lacks of the numbers of its reference."""
    rows = [
        [
            *_name(numbers, place),
            *(numbers(at("arms", place, "missing", number, what), "count") for what in ("llm", "lacks")),
            text_of(numbers, at("arms", place, "missing", number, "first")),
        ]
        for place, entry in enumerate(numbers.analysis["arms"])
        for number in range(len(entry["missing"]))
    ]
    if not rows:
        return ""
    caption = ["What was not measured, and is in no mean of these arms; all of it where no number stands."]
    head = ("variant", "arm", "LLM", "numbers", "the first")
    return folded("What was not measured", table("Not measured", caption, head, rows, left=2))


def controls(numbers: Numbers) -> Part:
    """What could kill the claim."""
    rows: list[list[Piece | Words]] = []
    for name in numbers.analysis["controls"]:
        source = at("controls", name)
        words = name.replace("_", " ").replace("stage1", "pretraining")
        cells: list[Piece | Words] = [words, text_of(numbers, f"{source}/about")]
        cells += [text_of(numbers, f"{source}/label"), numbers(f"{source}/n", "count")]
        rows.append(cells + difference(numbers, source, "points"))
    caption = ["Differences in percentage points over LLMs with their ", level_of(numbers), " t intervals."]
    head = ("control", "what it would say", "standing", "LLMs", "mean", "interval", "p")
    drawn = f'<div class="reading">{table("Controls", caption, head, rows, left=3)}</div>'
    return Part("controls", "Controls", drawn)
