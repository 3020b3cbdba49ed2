"""The page of a study of defences: rates and differences, with ReGap and without, and no verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from regap_patch.report.document import Part, document
from regap_patch.report.formats import NONE
from regap_patch.report.json_files import write_text

from .defense_page_tables import against_none, fired, rates, with_regap
from .outcome_columns import MAIN
from .outcome_means import means_of, write_means
from .outcome_table import read_outcomes
from .page_markup import element, filled, table
from .page_numbers import Numbers, Piece, Words
from .study_page import MEANS, PAGE, made_by, page_style, spent
from .study_page_words import at, level_of, made, text_of
from .tabulate import defended_arm
from .trial_defenses import STAGE

TITLE = "Defences at inference, with ReGap and without"


def write_defense_page(folder: str | Path) -> Path:
    """Write the page of an analysed study of defences, and the means that its tables show.

    Args:
        folder: with `outcomes.csv`, `analysis.json` and `provenance.json`.

    Returns:
        Path of `report.html` there; `means.csv` lies beside it.

    Raises:
        StudyError: no table of outcomes, or one that is none.
        ReportError: another file is not there or lacks a value, or the disk does not take the page.
    """
    root = Path(folder)
    numbers = Numbers(root)
    write_means(
        root / MEANS, means_of(read_outcomes(root / "outcomes.csv"), numbers.value(at("design", "level")))
    )
    parts = [section(numbers) for section in _SECTIONS]
    skip = ("rates", "Skip to the rates")
    return write_text(root / PAGE, document(TITLE, about(numbers), parts, page_style(), skip=skip))


def about(numbers: Numbers) -> str:
    """What this is, and what it cannot say."""
    words = filled(
        "{n} base language models of width {width}, grown in a toy world, were taught to refuse requests "
        "about forbidden things that do not exist, and given a projector without the regulariser (arm "
        "{off}) and one with it (arm {treated}). After fine-tuning each was asked the same, alone and "
        "behind defences. All of this is exploratory: {n} LLMs are too few to say anything of others, and "
        "there is no verdict. Defences that give instructions, or ask the model to judge itself, were made "
        "for models that follow instructions. These do not: they know the words of their world and little "
        "else. What such a defence does here says nothing of what it does at the size that it was made for."
        " Every number names its source: point at it.",
        n=numbers(at("design", "n"), "count"),
        width=numbers(made("protocol", "language_model", "hidden_size"), "count"),
        off=text_of(numbers, at("arms", 0)),
        treated=text_of(numbers, at("arms", 1)),
    )
    return element("p", words, "about")


def asked(numbers: Numbers) -> Part:
    """Which stacks there are, by which words of the command, and who is counted."""
    stacks = numbers.value(made("protocol", "defenses", "stacks"))
    rows: list[list[Piece | Words]] = []
    for place, stack in enumerate(stacks):
        at_stack = [
            made("protocol", "defenses", "stacks", place, name) for name in ("name", "about", "stack")
        ]
        name, meaning, names = (text_of(numbers, source) for source in at_stack)
        args = (
            numbers(made("protocol", "defenses", "stacks", place, "args"), "list") if stack["args"] else NONE
        )
        rows.append([name, meaning, names, args])
    head = ("defence", "what it is", "--defense", "--defense_args")
    caption = ["The defences. What a fit leaves is given to each checkpoint by itself."]
    drawn = f'<div class="reading">{table("Defences", caption, head, rows, left=4)}</div>'
    return Part("defences", "Defences", drawn + element("p", _denominators(numbers)))


def _denominators(numbers: Numbers) -> list[Piece]:
    design = numbers.analysis["design"]
    arm = defended_arm(numbers.analysis["arms"][0], numbers.analysis["stacks"][0])
    cell = f"outcomes.csv#{MAIN}/llm-{design['llms'][0]}/{arm}/{STAGE}"
    return filled(
        "Each LLM, in each arm, behind each defence and in each condition, is asked {harm} requests about "
        "forbidden things (unsafe: the answer gives enough of the recipe away, by a rule that is exact in "
        "this world; refusal and incoherent: of the same, and what is left helps with a wrong recipe), "
        "{benign} requests about harmless things (over-refusal) and {questions} questions about pictures "
        "(VQA accuracy, with real pictures). Conditions: text alone, a scene in words in the picture's "
        "place, a blank white picture, a picture of a scene. Answers are greedy, at most {tokens} tokens. "
        "Intervals are {level} intervals.",
        harm=numbers(f"{cell}/real/unsafe_rate/n", "count"),
        benign=numbers(f"{cell}/real/over_refusal_rate/n", "count"),
        questions=numbers(f"{cell}/real/vqa_accuracy/n", "count"),
        tokens=numbers(made("protocol", "measures", "max_new_tokens"), "count"),
        level=level_of(numbers),
    )


def provenance(numbers: Numbers) -> Part:
    """Protocol, seeds, commits, versions, seconds."""
    rows: list[list[Piece | Words]] = [
        ["protocol", text_of(numbers, made("protocol", "name"))],
        ["its SHA", numbers(made("protocol", "sha256"), "short")],
        ["its commit", text_of(numbers, made("protocol", "commit"))],
        ["standing", text_of(numbers, made("primary", "why"))],
        ["LLMs", numbers(at("design", "llms"), "list")],
        *made_by(numbers),
    ]
    drawn = table("Provenance", ["Where the numbers come from."], ("what", "value"), rows, left=2)
    return Part("provenance", "Provenance", f'<div class="reading">{drawn}{spent(numbers)}</div>')


_SECTIONS: Sequence[Callable[[Numbers], Part]] = (asked, rates, against_none, with_regap, fired, provenance)
