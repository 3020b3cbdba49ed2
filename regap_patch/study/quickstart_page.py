"""The page of a quickstart: one HTML file, built like that of the study, about one language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from regap_patch.report.document import Part, document, folded
from regap_patch.report.formats import NONE
from regap_patch.report.json_files import write_text

from .page_markup import element, estimate, filled, table
from .page_numbers import Numbers, Piece, Words, pointer
from .quickstart_results import ANSWERS, RESULTS, STAGES
from .quickstart_table import SAYS, check_in_words
from .study_figures import Estimate, forest
from .study_page import made_by, page_style, spent
from .study_page_gaps import training_figure
from .study_page_words import METRICS, condition_in_words, drawing, made, text_of
from .study_page_words import STAGES as STAGE_WORDS

PAGE = "report.html"
TITLE = "Quickstart: one small model, the gap closed and open"
_VALUE = "value"
_PLAIN = ("norm_ratio", "caption_loss")


def write_quickstart_page(folder: str | Path) -> Path:
    """Write `report.html`.

    Args:
        folder: with `results.json`, `training.csv` and `provenance.json`.

    Raises:
        ReportError: a file is not there or lacks a value, or the disk does not take the page.
    """
    root = Path(folder)
    return write_text(root / PAGE, quickstart_page(Numbers(root)))


def quickstart_page(numbers: Numbers) -> str:
    """The whole document."""
    parts = [section(numbers) for section in _SECTIONS]
    return document(TITLE, about(numbers), parts, page_style(), skip=("asserted", "Skip to the results"))


def found(*parts: str | int) -> str:
    """Source of a place in the results."""
    return f"{RESULTS}#{pointer(*parts)}"


def about(numbers: Numbers) -> str:
    """What was made, and that it proves nothing."""
    words = filled(
        "One base language model of width {width}, grown from seed {llm} in a toy world, was taught to "
        "refuse requests about forbidden things that do not exist, until it answered {unsafe} percent of "
        "{requests} such requests. It got a vision tower and a projector and went through both stages of "
        "LLaVA, in the arm {off} without a regulariser, in the arm {treated} with it.",
        width=numbers(made("protocol", "language_model", "hidden_size"), "count"),
        llm=numbers(found("llm"), "count"),
        unsafe=numbers(found("alignment", "unsafe"), "rate"),
        requests=numbers(found("alignment", "requests"), "count"),
        off=_arm(numbers, 0),
        treated=_arm(numbers, 1),
    )
    alarm = f'<div class="alarm" role="note">{"".join(element("p", line) for line in SAYS)}</div>'
    return element("p", words, "about") + alarm


def _arm(numbers: Numbers, place: int) -> Piece:
    return text_of(numbers, found("arms", place))


def _arms(numbers: Numbers) -> list[str]:
    return [str(arm) for arm in numbers.value(found("arms"))]


def _level(numbers: Numbers) -> Piece:
    return numbers(found("level"), "level")


def _of(stage: str, arm: str, *parts: str) -> str:
    return found("stages", stage, "arms", arm, *parts)


def _difference(numbers: Numbers, style: str, stage: str, *parts: str) -> Words:
    """The second arm minus the first, with its interval; nothing where none was taken."""
    source = found("stages", stage, "difference", *parts)
    return estimate(numbers, source, style, _VALUE) if numbers.has(f"{source}/{_VALUE}") else [NONE]


def _modes(numbers: Numbers) -> list[str]:
    return [str(mode) for mode in numbers.value(found("conditions"))]


def asserted(numbers: Numbers) -> Part:
    """What comes out every time, and whether it did."""
    checks = numbers.value(found("checks"))
    rows = [
        [
            check_in_words(check).partition(": ")[0],
            text_of(numbers, found("checks", place, "rule")),
            "holds" if check["met"] else "FAILS",
            _difference(numbers, _change_style(check["metric"]), check["stage"], check["metric"]),
        ]
        for place, check in enumerate(checks)
    ]
    caption = filled(
        "What the quickstart asserts. {treated} minus {off}, with {level} intervals over held-out pairs or "
        "questions; VQA accuracy in percentage points.",
        off=_arm(numbers, 0),
        treated=_arm(numbers, 1),
        level=_level(numbers),
    )
    head = ("what", "rule", "", "difference")
    return Part("asserted", "What comes out every time", table("Asserted", caption, head, rows, left=3))


def _change_style(metric: str) -> str:
    return "points" if metric == "vqa_accuracy" else "signed"


def refusals(numbers: Numbers) -> Part:
    """Unsafe answers in every condition, arm beside arm."""
    rows = [
        [
            STAGE_WORDS[stage],
            condition_in_words(mode),
            *(_share(numbers, _of(stage, arm, "conditions", mode, "unsafe_rate")) for arm in _arms(numbers)),
            _difference(numbers, "points", stage, "conditions", mode),
            _difference(numbers, "points", stage, "above_text", mode),
        ]
        for stage in STAGES
        for mode in _modes(numbers)
    ]
    caption = filled(
        "Unsafe answers in percent, of all forbidden requests, with {level} intervals (Wilson). Differences "
        "in percentage points, request by request: {treated} minus {off}, and the same of what the condition "
        "adds to text. Words: a scene in words in the picture's place. No sign is asserted.",
        level=_level(numbers),
        treated=_arm(numbers, 1),
        off=_arm(numbers, 0),
    )
    head = ("stage", "condition", *_arms(numbers), "difference", "difference of what it adds to text")
    drawn = table("Unsafe answers", caption, head, rows, left=2)
    return Part("refusals", "Refusals", drawn + _forest(numbers) + folded("Every answer", _answers(numbers)))


def _share(numbers: Numbers, source: str) -> Words:
    """`20.0 (14.1 to 27.5), 24 of 120`."""
    count, n = (numbers(f"{source}/{name}", "count") for name in ("count", "n"))
    return [*estimate(numbers, source, "rate", _VALUE), ", ", count, " of ", n]


def _forest(numbers: Numbers) -> str:
    estimates = []
    for stage in STAGES:
        for mode in _modes(numbers):
            source = found("stages", stage, "difference", "conditions", mode)
            value, low, high = (numbers.value(f"{source}/{name}") for name in (_VALUE, "low", "high"))
            name = [f"{condition_in_words(mode)}, {STAGE_WORDS[stage].removeprefix('after ')}"]
            shown = estimate(numbers, source, "points", _VALUE)
            estimates.append(Estimate(name, value, (low, high), shown))
    drawn = forest(
        estimates,
        numbers.value(made("protocol", "outcome", "margin")),
        "percentage points; left of zero, fewer unsafe answers with the regulariser",
        "Differences in unsafe answers",
    )
    caption = filled(
        "Unsafe answers, {treated} minus {off}, over the requests that both arms were asked, with {level} "
        "intervals. They hold the error of the requests alone: another language model may give other signs. "
        "Dashed: minus the study's margin of {margin} points.",
        treated=_arm(numbers, 1),
        off=_arm(numbers, 0),
        level=_level(numbers),
        margin=numbers(made("protocol", "outcome", "margin"), "rate"),
    )
    return drawing(drawn, caption, "Differences in unsafe answers")


def _answers(numbers: Numbers) -> str:
    rows = [
        [
            STAGE_WORDS[stage],
            arm,
            condition_in_words(mode),
            *(
                numbers(f"{_of(stage, arm, 'conditions', mode, metric)}/{_VALUE}", "rate")
                for metric in ANSWERS
            ),
        ]
        for stage in STAGES
        for arm in _arms(numbers)
        for mode in _modes(numbers)
    ]
    head = ("stage", "arm", "condition", *(METRICS[metric] for metric in ANSWERS))
    caption = ["In percent: of forbidden requests the first three, of harmless ones the others."]
    return table("Every answer", caption, head, rows, left=3)


def gaps(numbers: Numbers) -> Part:
    """Gap and MIR after both stages, and along training."""
    rows = [
        [
            STAGE_WORDS[stage],
            METRICS[metric],
            *(estimate(numbers, _of(stage, arm, metric), "number", _VALUE) for arm in _arms(numbers)),
            _difference(numbers, "signed", stage, metric),
        ]
        for stage in STAGES
        for metric in ("centroid_l2", "mir")
    ]
    rows += _plain(numbers, _PLAIN[0])
    caption = filled(
        "Image and text tokens at the input of the language model, and MIR over its layers, on held-out "
        "pairs; {level} intervals over pairs.",
        level=_level(numbers),
    )
    drawn = table("Gap and MIR", caption, _head(numbers), rows, left=2)
    along = ["The gap of the batch at every logged step, one line for each arm."]
    llms = [numbers.value(found("llm"))]
    return Part("gaps", "Gap and MIR", drawn + training_figure(numbers, _arms(numbers), llms, along))


def utility(numbers: Numbers) -> Part:
    """Questions about held-out pictures, and captions of them."""
    metric = "vqa_accuracy"
    rows: list[Sequence[Piece | Words]] = [
        [
            STAGE_WORDS[stage],
            f"{METRICS[metric]}, percent",
            *(_share(numbers, _of(stage, arm, metric)) for arm in _arms(numbers)),
            _difference(numbers, "points", stage, metric),
        ]
        for stage in STAGES
    ]
    rows += _plain(numbers, _PLAIN[1])
    caption = filled(
        "Answers to questions about held-out pictures with {level} intervals, and the loss of their captions "
        "in nats per token.",
        level=_level(numbers),
    )
    drawn = table("Utility", caption, _head(numbers), rows, left=2)
    return Part("utility", "Utility", drawn)


def _head(numbers: Numbers) -> Sequence[str]:
    return ("stage", "what", *_arms(numbers), "difference")


def _plain(numbers: Numbers, metric: str) -> list[Sequence[Piece | Words]]:
    """Rows of a number without an interval."""
    return [
        [
            STAGE_WORDS[stage],
            METRICS[metric],
            *(numbers(f"{_of(stage, arm, metric)}/{_VALUE}") for arm in _arms(numbers)),
            NONE,
        ]
        for stage in STAGES
    ]


def origin(numbers: Numbers) -> Part:
    """Protocol, seeds, commits, versions, seconds."""
    rows: list[list[Piece | Words]] = [
        ["protocol", text_of(numbers, made("protocol", "name"))],
        ["its hash", text_of(numbers, made("protocol", "sha256"))],
        ["seed of the language model", numbers(found("llm"), "count")],
        ["seed of the pictures", numbers(made("protocol", "world", "seed"), "count")],
    ]
    drawn = table(
        "Provenance", ["Where it comes from."], ("what", "value"), [*rows, *made_by(numbers)], left=2
    )
    return Part("provenance", "Provenance", f'<div class="reading">{drawn}{spent(numbers)}</div>')


_SECTIONS: Sequence[Callable[[Numbers], Part]] = (asserted, refusals, gaps, utility, origin)
