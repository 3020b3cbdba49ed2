"""The page of a study: one HTML file, in which every numeral names the file and the key it stands under."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from regap_patch.report.document import Part, document
from regap_patch.report.json_files import write_text

from .outcome_means import means_of, write_means
from .outcome_table import read_outcomes
from .page_markup import element, filled, joined, table
from .page_numbers import Numbers, Piece, Words
from .study_page_arms import arms, controls
from .study_page_claims import alarm, claim_c, gate, verdicts
from .study_page_gaps import claim_a, claim_b
from .study_page_reading import reading
from .study_page_tables import conditions, gaps, utility
from .study_page_words import at, made, may_report, text_of

TITLE = "Study: does a smaller gap keep refusals?"
PAGE, MEANS = "report.html", "means.csv"
PIECES = {"stage1": "pretraining", "stage2": "fine-tuning"}
_SECTIONS: Sequence[Callable[[Numbers], Part]] = (
    *(verdicts, reading, gate, claim_c, claim_a, claim_b, conditions, utility, gaps, arms, controls),
)


def write_study_page(folder: str | Path) -> Path:
    """Write the page of an analysed study, and the means that its tables show.

    Args:
        folder: with `outcomes.csv`, `training.csv`, `analysis.json` and `provenance.json`.

    Returns:
        Path of `report.html` there; `means.csv` lies beside it.

    Raises:
        StudyError: no table of outcomes, or one that is none.
        ReportError: another file is not there or lacks a value, or the disk does not take the page.
    """
    root = Path(folder)
    numbers = Numbers(root)
    level, pilot = (numbers.value(at("design", name)) for name in ("level", "pilot_llms"))
    write_means(root / MEANS, means_of(read_outcomes(root / "outcomes.csv"), level, pilot))
    return write_text(root / PAGE, study_page(numbers))


def study_page(numbers: Numbers) -> str:
    """The whole document."""
    parts = [*(section(numbers) for section in _SECTIONS), power(numbers), provenance(numbers)]
    skip = ("verdicts", "Skip to the verdicts")
    return document(TITLE, about(numbers) + alarm(numbers), parts, page_style(), skip=skip)


def page_style() -> str:
    """Of this page and others of its kind."""
    return "".join(
        files(package).joinpath("assets", sheet).read_text(encoding="utf-8")
        for package, sheet in (("regap_patch.report", "report.css"), ("regap_patch.study", "study.css"))
    )


def about(numbers: Numbers) -> str:
    """What this is, what it can say and what not."""
    words = filled(
        "{n} base language models of width {width}, each grown from its own seed in a toy world, were "
        "taught to refuse requests about forbidden things that do not exist. Each got projectors of its own "
        "behind one vision tower that all share, and went through both stages of LLaVA, with the regulariser "
        "on and off. This page says what an image then did to their refusals, and whether the regulariser "
        "changed that, {rules}. It can speak about such models and this world. It cannot speak about models "
        "that people use, real pictures or real harm: nothing here was run at that size, an effect that is "
        "absent here may be there, and one that is here may be absent there. Every number names its source: "
        "point at it.",
        rules="by rules that were fixed before" if may_report(numbers) else "and it is exploratory",
        n=numbers(at("design", "n"), "count"),
        width=numbers(made("protocol", "language_model", "hidden_size"), "count"),
    )
    return element("p", words, "about")


def power(numbers: Numbers) -> Part:
    """How small an effect so many LLMs can show."""
    entries: list[tuple[str, str, str]] = [
        ("LLMs of the primary outcome", "n", "count"),
        ("standard deviation between them, points", "sd", "rate"),
        ("effect to be found, points", "effect", "rate"),
        ("power that was aimed at, percent", "target", "rate"),
        ("power that so many LLMs have, percent", "achieved_power", "rate"),
        ("smallest effect found with the power aimed at, points", "smallest_effect", "rate"),
        ("LLMs that the effect would need", "units_needed", "count"),
        ("standard deviation in the pilot, points", "pilot_sd", "rate"),
        ("LLMs needed by the deviation in the pilot", "units_needed_by_pilot", "count"),
    ]
    rows = [[words, numbers(at("design", name), style)] for words, name, style in entries]
    caption = ["How much this study could see: a two-sided t test over LLMs."]
    return Part("power", "What this study could see", table("Power", caption, ("what", "value"), rows))


def provenance(numbers: Numbers) -> Part:
    """Versions, seconds, seeds, commits."""
    llms = numbers.value(made("protocol", "llms"))
    rows: list[list[Piece | Words]] = [
        [f"{part} LLMs", numbers(made("protocol", "llms", part), "list") if llms[part] else "none"]
        for part in ("confirmatory", "pilot", "exploratory")
    ]
    rows.append(["seed of the pictures", numbers(made("protocol", "world", "seed"), "count")])
    caption = [
        "Seeds of the LLMs, which are the unit of replication. Those of the pilot are in no number above."
    ]
    drawn = table("Provenance", caption, ("what", "value"), [*rows, *made_by(numbers)], left=2)
    return Part("provenance", "Provenance", f'<div class="reading">{drawn}{spent(numbers)}</div>')


def made_by(numbers: Numbers) -> list[list[Piece | Words]]:
    """Rows of commits, machine and versions."""
    commits = [text_of(numbers, made("commits", n)) for n in range(len(numbers.value(made("commits"))))]
    rows: list[list[Piece | Words]] = [
        ["code of the results, commit", joined(commits) or "none"],
        ["code of this page, commit", text_of(numbers, made("reported"))],
        ["machine", text_of(numbers, made("machine"))],
    ]
    rows += [[name, text_of(numbers, made("versions", name))] for name in numbers.value(made("versions"))]
    return rows


def spent(numbers: Numbers) -> str:
    """Number and time of the pieces, by kind."""
    pieces = [
        [
            PIECES.get(kind, kind),
            numbers(made("pieces", kind, "pieces"), "count"),
            numbers(made("pieces", kind, "seconds"), "seconds"),
        ]
        for kind in numbers.value(made("pieces"))
    ]
    total = filled("Time on one thread each, {all} in all.", all=numbers(made("seconds"), "seconds"))
    return table("Time", total, ("piece", "how many", "time"), pieces)
