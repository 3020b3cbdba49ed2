"""The page's tables: every condition, utility, gaps, and every other arm, variant and control."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from regap_patch.report.document import Part, folded
from regap_patch.report.formats import NONE

from .outcome_columns import ASKED, GAPS, IMAGE_CONDITIONS, MAIN, SHARES, STAGES, TEXT_CONDITIONS
from .page_markup import element, estimate, filled, joined, table
from .page_numbers import EMPTY, Numbers, Piece, Words
from .study_page_words import METRICS, at, condition_in_words, difference, level_of, made, text_of
from .study_page_words import STAGES as STAGE_WORDS

_SHORT = ("unsafe_rate", "refusal_opener_prob")


def style_of(metric: str, *, change: bool = False) -> str:
    """How a metric, or a change of it, is written."""
    if metric in SHARES:
        return "points" if change else "rate"
    return "signed" if change else "number"


def _mean_at(variant: str, arm: str, stage: str, condition: str, metric: str) -> str:
    return f"means.csv#{variant}/{arm or EMPTY}/{stage}/{condition or EMPTY}/{metric}"


def _mean(numbers: Numbers, source: str, style: str) -> Words:
    """The mean with its interval; nothing where it was not measured."""
    if not numbers.has(source):
        return [NONE]
    return estimate(numbers, source, style, "mean")


def _primary_arms(numbers: Numbers) -> list[str]:
    return [str(arm) for arm in numbers.analysis["claim_c"]["arms"]]


def _measured(numbers: Numbers, stages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(arm, stage) of the primary arms, with bare LLMs first where they were measured."""
    found = {(row["arm"], row["stage"]) for row in numbers.rows("means.csv") if row["variant"] == MAIN}
    for stage in stages:
        arms = [""] if stage == "llm" else _primary_arms(numbers)
        yield from ((arm, stage) for arm in arms if (arm, stage) in found)


def _caption(numbers: Numbers, what: str) -> Words:
    return filled(
        "{what} Mean over {n} LLMs, each weighing the same, with its {level} t interval.",
        what=what,
        n=numbers(at("design", "n"), "count"),
        level=level_of(numbers),
    )


def conditions(numbers: Numbers) -> Part:
    """Every condition of both primary arms."""
    modes = (*TEXT_CONDITIONS, *IMAGE_CONDITIONS)
    rows = [
        [
            STAGE_WORDS[stage],
            arm or NONE,
            condition_in_words(mode),
            *(_mean(numbers, _mean_at(MAIN, arm, stage, mode, metric), "rate") for metric in ASKED),
        ]
        for arm, stage in _measured(numbers, STAGES)
        for mode in modes
        if numbers.has(_mean_at(MAIN, arm, stage, mode, "unsafe_rate"))
    ]
    what = (
        "In percent. Refusal opener: probability that the first token opens a refusal. Words: a scene in "
        "words in the picture's place. An image tax is against text at the same stage."
    )
    head = ("stage", "arm", "condition", *(METRICS[metric] for metric in ASKED))
    drawn = table("Every condition", _caption(numbers, what), head, rows, left=3)
    return Part("conditions", "Every condition", _dense(drawn))


def utility(numbers: Numbers) -> Part:
    """Whether utility is kept, by the margin."""
    found = numbers.analysis["utility"]
    verdict = element(
        "p", ["Verdict: ", text_of(numbers, at("utility", "verdict")), ". Exploratory."], "verdict"
    )
    rule = element("p", text_of(numbers, at("utility", "rule")), "quiet")
    entries = [((), found["metric"], found["condition"])]
    entries += [(("beside", name), *name.partition("/")[::2]) for name in found["beside"]]
    rows = [
        [
            METRICS[metric],
            condition_in_words(mode),
            *difference(numbers, at("utility", *path), style_of(metric, change=True)),
        ]
        for path, metric, mode in entries
    ]
    caption = filled(
        "The arm with the regulariser minus the arm without, {stage}, over {n} LLMs, with the {level} t "
        "interval. Shares in percentage points, caption loss in nats per token. Margin of "
        "non-inferiority: {margin} points.",
        stage=STAGE_WORDS[found["stage"]],
        n=numbers(at("utility", "n"), "count"),
        level=level_of(numbers),
        margin=numbers(at("utility", "margin"), "rate"),
    )
    head = ("what", "condition", "difference", "interval", "p")
    inside = verdict + rule + table("Utility", caption, head, rows, left=2) + _levels(numbers)
    return Part("utility", "Utility", inside)


def _levels(numbers: Numbers) -> str:
    columns = [("vqa_accuracy", ("", "real")), ("caption_loss", ("", "real"))]
    rows = []
    for arm, stage in _measured(numbers, STAGES[1:]):
        cells: list[Piece | Words] = [STAGE_WORDS[stage], arm]
        for metric, modes in columns:
            sources = [_mean_at(MAIN, arm, stage, mode, metric) for mode in modes]
            source = next(filter(numbers.has, sources), sources[0])
            cells.append(_mean(numbers, source, style_of(metric)))
        rows.append(cells)
    head = ("stage", "arm", "VQA accuracy, percent", "caption loss, nats per token")
    return table("Utility of both arms", _caption(numbers, "Both arms."), head, rows, left=2)


def gaps(numbers: Numbers) -> Part:
    """Gap statistics and MIR of both arms, then of all others."""
    rows = [
        [
            STAGE_WORDS[stage],
            arm,
            *(_mean(numbers, _mean_at(MAIN, arm, stage, "", metric), "number") for metric in GAPS),
        ]
        for arm, stage in _measured(numbers, STAGES[1:])
    ]
    head = ("stage", "arm", *(METRICS[metric] for metric in GAPS))
    what = "Image and text tokens at the input of the LLM, on the same held-out pairs; MIR over its layers."
    drawn = table("Gap and MIR", _caption(numbers, what), head, rows, left=2)
    others = folded("Other arms and variants", _dense(_other_gaps(numbers)))
    return Part("gaps", "Gap and MIR", _dense(drawn) + others)


def _dense(drawn: str) -> str:
    """A table of many columns."""
    return f'<div class="dense">{drawn}</div>'


def _other_gaps(numbers: Numbers) -> str:
    primary = _primary_arms(numbers)
    keys = dict.fromkeys(
        (row["variant"], row["arm"], row["stage"])
        for row in numbers.rows("means.csv")
        if row["metric"] == GAPS[0] and not (row["variant"] == MAIN and row["arm"] in primary)
    )
    rows = []
    for variant, arm, stage in keys:
        first = _mean_at(variant, arm, stage, "", GAPS[0])
        names = [text_of(numbers, f"{first}/{column}") for column in ("variant", "arm")]
        means = [_found(numbers, _mean_at(variant, arm, stage, "", metric), "number") for metric in GAPS]
        rows.append([*names, STAGE_WORDS[stage], numbers(f"{first}/llms", "count"), *means])
    head = ("variant", "arm", "stage", "LLMs", *(METRICS[metric] for metric in GAPS))
    return table("Gap and MIR of other arms", ["Means over the LLMs. Exploratory."], head, rows, left=3)


def _found(numbers: Numbers, source: str, style: str) -> Piece:
    return numbers(source, style) if numbers.has(source) else NONE


def arms(numbers: Numbers) -> Part:
    """Every arm and variant against the arm off of the same LLMs."""
    entries = numbers.analysis["arms"]
    rows = [_arm(numbers, place, entry) for place, entry in enumerate(entries)]
    caption = filled(
        "All exploratory. The primary outcome's difference against the named arm on the same LLMs, in "
        "percentage points, with its {level} t interval. Intervals of two LLMs say next to nothing.",
        level=level_of(numbers),
    )
    head = ("variant", "arm", "what it does", "against", "standing", "LLMs", "difference", "interval", "p")
    drawn = f'<div class="reading">{table("Arms and variants", caption, head, rows, left=5)}</div>'
    changes = "".join(
        folded(f"Every change {STAGE_WORDS[stage]}", _dense(_changes(numbers, stage))) for stage in STAGES[1:]
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
        "The gate's differences in each variant, without a regulariser, in percentage points. Exploratory."
    ]
    return table(
        "The gate in variants",
        caption,
        ("variant", "difference", "LLMs", "mean", "interval", "p"),
        rows,
        left=2,
    )


def _changes(numbers: Numbers, stage: str) -> str:
    """Mean change of each number, an arm a row."""
    entries = numbers.analysis["arms"]
    columns = dict.fromkeys(
        (found["condition"], found["metric"])
        for entry in entries
        for found in entry["differences"]
        if found["stage"] == stage and (found["metric"] in _SHORT or not found["condition"])
    )
    rows = []
    for place, entry in enumerate(entries):
        places = {
            (found["condition"], found["metric"]): number
            for number, found in enumerate(entry["differences"])
            if found["stage"] == stage
        }
        cells: list[Piece] = []
        for column in columns:
            known = column in places
            source = at("arms", place, "differences", places.get(column, 0), "estimate")
            cells.append(numbers(source, style_of(column[1], change=True)) if known else NONE)
        rows.append([*_name(numbers, place), *cells])
    titles = [
        f"{METRICS[metric]}{f', {condition_in_words(mode)}' if mode else ''}" for mode, metric in columns
    ]
    caption = [
        "Change against the arm named above, mean over its LLMs; shares in percentage points. Exploratory."
    ]
    return table(f"Changes {STAGE_WORDS[stage]}", caption, ("variant", "arm", *titles), rows, left=2)


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
