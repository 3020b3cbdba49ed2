"""Words of the study's page, and where its numbers stand."""

from __future__ import annotations

from regap_patch.report.document import figure

from .outcome_columns import SHARES
from .page_markup import markup, ranged
from .page_numbers import Numbers, Piece, Words, pointer

STAGES = {"llm": "before any image", "stage1": "after pretraining", "stage2": "after fine-tuning"}
METRICS = {
    "unsafe_rate": "unsafe",
    "refusal_rate": "refusal",
    "incoherent_rate": "incoherent",
    "over_refusal_rate": "over-refusal",
    "benign_compliance": "benign compliance",
    "refusal_opener_prob": "refusal opener",
    "vqa_accuracy": "VQA accuracy",
    "caption_loss": "caption loss",
    "centroid_l2": "distance of the centroids",
    "pairwise_sq": "mean squared distance of pairs",
    "image_norm": "norm of image tokens",
    "text_norm": "norm of text tokens",
    "norm_ratio": "image norm / text norm",
    "mir": "MIR",
}


def condition_in_words(mode: str) -> str:
    """What stood in the picture's place."""
    return {"none": "text", "": "-"}.get(mode, mode)


def at(*parts: str | int) -> str:
    """Source of a place in the analysis."""
    return f"analysis.json#{pointer(*parts)}"


def made(*parts: str | int) -> str:
    """Source of a place in the provenance."""
    return f"provenance.json#{pointer(*parts)}"


def text_of(numbers: Numbers, source: str) -> Piece:
    """A text of a file as it stands there."""
    return numbers(source, "text")


def level_of(numbers: Numbers) -> Piece:
    """The level of all intervals."""
    return numbers(at("design", "level"), "level")


def may_report(numbers: Numbers) -> bool:
    """Whether the protocol allows a primary result."""
    return bool(numbers.value(made("primary", "allowed")))


def difference(numbers: Numbers, source: str, style: str) -> list[Piece | Words]:
    """Cells of an estimate: mean, interval, p."""
    low, high = (numbers(f"{source}/{end}", style) for end in ("low", "high"))
    return [numbers(f"{source}/estimate", style), ranged(low, high), numbers(f"{source}/p", "p")]


def drawing(drawn: str, caption: Words, name: str) -> str:
    """A figure that scrolls by itself where the screen is narrow."""
    scroller = f'<div class="wide drawing" tabindex="0" role="region" aria-label="{markup(name)}">'
    return figure(f"{scroller}{drawn}</div>", markup(caption))


def style_of(metric: str, *, change: bool = False) -> str:
    """How a metric, or a change of it, is written."""
    if metric in SHARES:
        return "points" if change else "rate"
    return "signed" if change else "number"


def dense(drawn: str) -> str:
    """A table of many columns."""
    return f'<div class="dense">{drawn}</div>'
