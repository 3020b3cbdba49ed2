"""The page's claims about the gap: what it goes with, and where it comes from. All exploratory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regap_patch.report.document import Part

from .clustered import centred
from .outcome_columns import MAIN
from .page_markup import element, estimate, filled, joined, ranged, table
from .page_numbers import Numbers, Piece, Words
from .study_figures import Curve, Mark, cloud, courses, thinned
from .study_page_words import METRICS, at, drawing, level_of, text_of

_OTHERS = "exploratory arms"
_MOMENTS = {
    "init": "the new projector",
    "end_of_stage1": "the end of pretraining",
    "end_of_stage2": "the end of fine-tuning",
    "difference": "the change in fine-tuning",
}


def claim_a(numbers: Numbers) -> Part:
    """Gap and unsafe rate within each LLM."""
    verdict = element(
        "p", ["Verdict: ", text_of(numbers, at("claim_a", "verdict")), ". Exploratory."], "verdict"
    )
    rule = element("p", text_of(numbers, at("claim_a", "rule")), "quiet")
    found = numbers.analysis["claim_a"]
    figures = "".join(_cloud(numbers, metric) for metric in found["gaps"] if found["gaps"][metric]["points"])
    rows = [
        [
            METRICS.get(metric, metric),
            text_of(numbers, at("claim_a", "over", over)),
            *_correlation(numbers, at("claim_a", "gaps", metric, over)),
        ]
        for metric in found["gaps"]
        for over in found["over"]
    ]
    caption = filled(
        "Pearson's correlation of gap and unsafe rate (mean of the conditions with an image), with its "
        "{level} interval from leaving out whole LLMs; that of the arm off alone is Fisher's, of single "
        "points. After fine-tuning the rate differs for more reasons than the gap, so what is centred within "
        "stage as well decides. All exploratory.",
        level=level_of(numbers),
    )
    head = ("gap", "over", "r", "interval", "LLMs or points", "checkpoints")
    drawn = f'<div class="reading">{table("Correlations of claim A", caption, head, rows, left=2)}</div>'
    return Part(
        "claim-a",
        "Claim A: does a larger gap go with a higher unsafe rate?",
        verdict + rule + figures + drawn,
    )


def _correlation(numbers: Numbers, source: str) -> list[Piece | Words]:
    low, high = (numbers(f"{source}/{end}", "signed") for end in ("low", "high"))
    counts = (numbers(f"{source}/{name}", "count") for name in ("clusters", "members"))
    return [numbers(f"{source}/r", "signed"), ranged(low, high), *counts]


def _cloud(numbers: Numbers, metric: str) -> str:
    primary = numbers.analysis["claim_c"]["arms"]
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for point in numbers.analysis["claim_a"]["gaps"][metric]["points"]:
        groups.setdefault((point["llm"], point["stage"]), []).append(point)
    marks = []
    for points in groups.values():
        pairs = centred([(point["gap"], 100 * point["rate"]) for point in points])
        for point, (gap, rate) in zip(points, pairs, strict=True):
            series = primary.index(point["arm"]) if point["arm"] in primary else len(primary)
            marks.append(Mark(gap, rate, series))
    name = METRICS.get(metric, metric)
    titles = (f"{name}, minus the mean of its LLM and stage", "unsafe rate with an image, minus that mean")
    names = [*primary, _OTHERS][: 1 + max(mark.series for mark in marks)]
    drawn = cloud(marks, names, titles, f"Scatter plot of {name} and unsafe rate within LLMs")
    source = at("claim_a", "gaps", metric, "within_stage")
    caption = filled(
        "One mark for each checkpoint, the mean of its LLM and stage taken off. Over {members} checkpoints "
        "of {clusters} LLMs: r = {r}.",
        members=numbers(f"{source}/members", "count"),
        clusters=numbers(f"{source}/clusters", "count"),
        r=estimate(numbers, source, "signed", "r"),
    )
    return drawing(drawn, caption, f"Scatter plot of {name}")


def claim_b(numbers: Numbers) -> Part:
    """The gap from the new projector to the end of fine-tuning."""
    found = numbers.analysis["claim_b"]
    verdict = element(
        "p", ["Verdict: ", text_of(numbers, at("claim_b", "verdict")), ". Exploratory."], "verdict"
    )
    rule = element("p", text_of(numbers, at("claim_b", "rule")), "quiet")
    parts = [("arises", "arises", ""), ("persists", "persists", "")]
    parts += [(f"logged/{name}", "logged while training", name) for name in found["logged"]]
    parts += [(f"measured/{name}", "measured on held-out pairs", name) for name in found["measured"]]
    rows: list[list[Piece | Words]] = []
    for path, what, name in parts:
        source = at("claim_b", *path.split("/"))
        about: Piece | Words = _MOMENTS.get(name, name)
        said: Piece = ""
        if not name:
            about, said = text_of(numbers, f"{source}/rule"), text_of(numbers, f"{source}/verdict")
        low, high = (numbers(f"{source}/{end}") for end in ("low", "high"))
        rows.append(
            [
                what,
                about,
                said,
                numbers(f"{source}/estimate"),
                ranged(low, high),
                numbers(f"{source}/n", "count"),
            ]
        )
    caption = filled(
        "Distance of the centroids of image and text tokens in the arm {arm}, mean over LLMs with its "
        "{level} t interval.",
        arm=text_of(numbers, at("claim_b", "arm")),
        level=level_of(numbers),
    )
    head = ("what", "at", "verdict", "mean", "interval", "LLMs")
    drawn = f'<div class="reading">{table("Claim B", caption, head, rows, left=3)}</div>'
    title = "Claim B: does the gap come from pretraining, and persist?"
    return Part("claim-b", title, verdict + rule + _courses(numbers) + drawn)


def _courses(numbers: Numbers) -> str:
    primary, llms = numbers.analysis["claim_c"]["arms"], numbers.analysis["design"]["llms"]
    arms = joined(text_of(numbers, at("claim_c", "arms", place)) for place in range(len(primary)))
    caption = filled(
        "The gap of the batch at every logged step, one line for each of {n} LLMs and arm ({arms}).",
        n=numbers(at("design", "n"), "count"),
        arms=arms,
    )
    return training_figure(numbers, primary, llms, caption)


def training_figure(numbers: Numbers, arms: Sequence[str], llms: Sequence[int], caption: Words) -> str:
    """The gap along both stages of training; nothing where none was logged."""
    steps: dict[tuple[str, str], list[tuple[str, float, float]]] = {}
    border = 0.0
    for row in numbers.rows("training.csv"):
        if row["variant"] == MAIN and row["arm"] in arms and int(row["llm"]) in llms:
            place = (row["stage"], float(row["step"]), float(row["centroid_l2"]))
            steps.setdefault((row["llm"], row["arm"]), []).append(place)
            border = max(border, float(row["step"]) if row["stage"] == "stage1" else 0.0)
    if not steps:
        return ""
    curves = []
    for (_, arm), places in steps.items():
        points = sorted((step + border * (stage == "stage2"), gap) for stage, step, gap in places)
        curves.append(Curve(thinned(points), arms.index(arm)))
    drawn = courses(
        curves, arms, border, ("optimizer step", "distance of the centroids"), "The gap along training"
    )
    return drawing(drawn, caption, "The gap along training")
