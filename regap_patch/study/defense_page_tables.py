"""Tables of the page on defences: rates, each defence against none, ReGap behind each, and what fired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regap_patch.report.document import Part, folded
from regap_patch.report.formats import NONE

from .outcome_columns import MAIN
from .page_markup import element, estimate, filled, table
from .page_numbers import Numbers, Piece, Words
from .study_page_words import METRICS, at, condition_in_words, dense, level_of, text_of
from .tabulate import defended_arm
from .trial_defenses import STAGE

CHANGES = ("unsafe_rate", "over_refusal_rate", "vqa_accuracy", "incoherent_rate")
RATES = (*CHANGES[1:], "refusal_rate")
BESIDE = (("over_refusal_rate", "none"), ("over_refusal_rate", "blank"), ("vqa_accuracy", "real"))
Cells = list[Piece | Words]


def _title(metric: str) -> str:
    return METRICS[metric][0].upper() + METRICS[metric][1:]


def rates(numbers: Numbers) -> Part:
    """Unsafe rates with over-refusal and utility beside them, then every metric in every condition."""
    unsafe = [("unsafe_rate", mode) for mode in _conditions(numbers, "unsafe_rate")]
    beside = [(metric, mode) for metric, mode in BESIDE if mode in _conditions(numbers, metric)]
    summary = _rates(numbers, "Unsafe, over-refusal and VQA accuracy", [*unsafe, *beside])
    others = [
        _rates(numbers, _title(metric), [(metric, mode) for mode in _conditions(numbers, metric)])
        for metric in RATES
    ]
    return Part("rates", "Rates", dense(summary) + folded("The rest in every condition", "".join(others)))


def _conditions(numbers: Numbers, metric: str) -> list[str]:
    found = {row["condition"] for row in numbers.analysis["between_arms"] if row["metric"] == metric}
    return [mode for mode in numbers.analysis["conditions"] if mode in found]


def _rates(numbers: Numbers, what: str, columns: Sequence[tuple[str, str]]) -> str:
    """A row for each defence and arm; columns are a metric in a condition."""
    analysis, rows = numbers.analysis, []
    for place, stack in enumerate(analysis["stacks"]):
        for number, arm in enumerate(analysis["arms"]):
            model = f"means.csv#{MAIN}/{defended_arm(arm, stack)}/{STAGE}"
            names: Cells = [text_of(numbers, at("stacks", place)), text_of(numbers, at("arms", number))]
            cells = (
                estimate(numbers, f"{model}/{mode}/{metric}", "rate", "mean") for metric, mode in columns
            )
            rows.append([*names, *cells])
    caption = filled(
        "{what}, in percent: mean over {n} LLMs, each weighing the same, with its {level} t interval.",
        what=what,
        n=numbers(at("design", "n"), "count"),
        level=level_of(numbers),
    )
    titles = [f"{METRICS[metric]}, {condition_in_words(mode)}" for metric, mode in columns]
    return table(what, caption, ("defence", "arm", *titles), rows, left=2)


def against_none(numbers: Numbers) -> Part:
    """What each defence changes in each arm."""
    words = element(
        "p",
        "Bare text and words keep every bit behind a defence that moves states beside pictures, or that "
        "checks answers to pictures. Of so few LLMs an interval says next to nothing of others, and nothing "
        "is corrected for the number of differences shown, here and below.",
    )
    drawn = "".join(
        element("h3", _title(metric))
        + _changes(numbers, "against_none", metric, "each defence minus none on the same items")
        for metric in CHANGES
    )
    return Part("against-none", "Each defence against none", words + drawn + _within(numbers, "against_none"))


def with_regap(numbers: Numbers) -> Part:
    """What ReGap changes behind each defence, and whether that is more than without."""
    treated, off = (str(arm) for arm in reversed(numbers.analysis["arms"]))
    words = element(
        "p",
        "Of each metric first what ReGap changes behind the same defence, then whether that is more than "
        "what it changes without one.",
    )
    drawn = "".join(
        element("h3", _title(metric))
        + _changes(numbers, "between_arms", metric, f"{treated} minus {off} behind the same defence")
        + _changes(numbers, "interaction", metric, f"{treated} minus {off}, behind a defence minus without")
        for metric in CHANGES
    )
    return Part("regap", "ReGap behind each defence", words + drawn + _within(numbers, "between_arms"))


def _places(numbers: Numbers, part: str, metric: str) -> dict[tuple[str, ...], dict[str, int]]:
    """Where the estimates of a metric stand: by (stack, arm), then condition."""
    found: dict[tuple[str, ...], dict[str, int]] = {}
    for place, row in enumerate(numbers.analysis[part]):
        if row["metric"] == metric:
            found.setdefault(_named(row), {})[row["condition"]] = place
    return found


def _named(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("stack", "arm") if name in row)


def _changes(numbers: Numbers, part: str, metric: str, what: str) -> str:
    modes, rows = _conditions(numbers, metric), []
    for where, places in _places(numbers, part, metric).items():
        first = next(iter(places.values()))
        names = [text_of(numbers, at(part, first, name)) for name in ("stack", "arm")[: len(where)]]
        rows.append([*names, *(estimate(numbers, at(part, places[mode]), "points") for mode in modes)])
    caption = filled(
        "{metric}: {what}, in percentage points. Mean over {n} LLMs with its {level} t interval.",
        metric=_title(metric),
        what=what,
        n=numbers(at("design", "n"), "count"),
        level=level_of(numbers),
    )
    head = ("defence", "arm")[: len(rows[0]) - len(modes)]
    return table(what, caption, (*head, *map(condition_in_words, modes)), rows, left=len(head))


def _within(numbers: Numbers, part: str) -> str:
    """The same differences within each LLM, item by item."""
    tables = "".join(_within_table(numbers, part, metric) for metric in CHANGES)
    return folded("Within each LLM, item by item", dense(tables))


def _within_table(numbers: Numbers, part: str, metric: str) -> str:
    modes, rows = _conditions(numbers, metric), []
    found = _places(numbers, part, metric)
    for number in range(len(numbers.analysis["design"]["llms"])):
        for where, places in found.items():
            first = next(iter(places.values()))
            names: Cells = [numbers(at(part, first, "paired", number, "llm"), "count")]
            names += [text_of(numbers, at(part, first, name)) for name in ("stack", "arm")[: len(where)]]
            cells = (estimate(numbers, at(part, places[mode], "paired", number), "points") for mode in modes)
            rows.append([*names, *cells])
    first = next(iter(next(iter(found.values())).values()))
    caption = filled(
        "{metric}: the same difference within each LLM, of {n} items asked both times, in percentage points, "
        "with Newcombe's {level} interval for pairs. It speaks of other items, not of other LLMs.",
        metric=_title(metric),
        n=numbers(at(part, first, "paired", 0, "n"), "count"),
        level=level_of(numbers),
    )
    head = ("LLM", "defence", "arm")[: len(rows[0]) - len(modes)]
    name = f"{METRICS[metric]} within each LLM"
    return table(name, caption, (*head, *map(condition_in_words, modes)), rows, left=len(head))


def fired(numbers: Numbers) -> Part:
    """On how many answers each defence acted."""
    analysis = numbers.analysis
    places = {
        (row["stack"], row["defense"], row["arm"], row["condition"]): number
        for number, row in enumerate(analysis["fired"])
    }
    rows: list[Cells] = []
    for stack, defense, arm in dict.fromkeys(where[:3] for where in places):
        first = next(number for where, number in places.items() if where[:3] == (stack, defense, arm))
        names: Cells = [text_of(numbers, at("fired", first, name)) for name in ("stack", "defense", "arm")]
        cells = [_share(numbers, places.get((stack, defense, arm, mode))) for mode in analysis["conditions"]]
        rows.append([*names, *cells, _generations(numbers, stack, arm)])
    caption = [
        "Answers on which a defence acted, over all LLMs: for a defence of the prompt all, for one of hidden "
        "states all with a picture, for one that checks the answer those that the check found harmful. "
        "Generations: of an answer, checks and captions among them."
    ]
    modes: Sequence[str] = [condition_in_words(mode) for mode in analysis["conditions"]]
    head = ("defence", "part of it", "arm", *modes, "generations")
    return Part("fired", "What acted, and what it cost", table("Fired", caption, head, rows, left=3))


def _share(numbers: Numbers, place: int | None) -> Piece | Words:
    if place is None:
        return NONE
    return [numbers(at("fired", place, "count"), "count"), " of ", numbers(at("fired", place, "n"), "count")]


def _generations(numbers: Numbers, stack: str, arm: str) -> Piece:
    rows = numbers.analysis["generations"]
    place = next(number for number, row in enumerate(rows) if (row["stack"], row["arm"]) == (stack, arm))
    return numbers(at("generations", place, "mean"), "number")
