"""The page's tables of what was measured: every condition, utility, gaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from regap_patch.report.document import Part, folded
from regap_patch.report.formats import NONE

from .outcome_columns import ASKED, GAPS, IMAGE_CONDITIONS, MAIN, STAGES, TEXT_CONDITIONS
from .page_markup import element, estimate, filled, table
from .page_numbers import EMPTY, Numbers, Piece, Words
from .study_page_words import METRICS, at, condition_in_words, dense, difference, level_of, style_of, text_of
from .study_page_words import STAGES as STAGE_WORDS


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
        "words in the picture's place. An image tax is against text at the same stage. Exploratory."
    )
    head = ("stage", "arm", "condition", *(METRICS[metric] for metric in ASKED))
    drawn = table("Every condition", _caption(numbers, what), head, rows, left=3)
    return Part("conditions", "Every condition", dense(drawn))


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
    return table("Utility of both arms", _caption(numbers, "Both arms. Exploratory."), head, rows, left=2)


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
    what = (
        "Exploratory. Image and text tokens at the input of the LLM, on the same held-out pairs; MIR over "
        "its layers."
    )
    drawn = table("Gap and MIR", _caption(numbers, what), head, rows, left=2)
    others = folded("Other arms and variants", dense(_other_gaps(numbers)))
    return Part("gaps", "Gap and MIR", dense(drawn) + others)


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
        means = [_mean(numbers, _mean_at(variant, arm, stage, "", metric), "number") for metric in GAPS]
        rows.append([*names, STAGE_WORDS[stage], numbers(f"{first}/llms", "count"), *means])
    head = ("variant", "arm", "stage", "LLMs", *(METRICS[metric] for metric in GAPS))
    caption = ["Means over the LLMs, with their ", level_of(numbers), " t intervals. Exploratory."]
    return table("Gap and MIR of other arms", caption, head, rows, left=3)
