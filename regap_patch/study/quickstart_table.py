"""The results of a quickstart as text: one column an arm, and the second minus the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .quickstart_results import STAGES
from .study_page_words import METRICS, condition_in_words
from .study_page_words import STAGES as STAGE_WORDS

_WIDTHS = (34, 32, 32, 30)
SAYS = (
    "One language model proves nothing, whichever way its refusals went: the next one may go the other way.",
    "What many of them showed, and what would settle it: docs/what-we-found.md, docs/study/.",
)


def table(results: Mapping[str, Any]) -> str:
    """Everything that the page shows first, with its intervals."""
    off, treated = results["arms"]
    head = _line("", off, treated, f"{treated} minus {off}")
    lines = [f"language model {results['llm']}: {_alignment(results['alignment'])}", ""]
    for stage in STAGES:
        title = STAGE_WORDS[stage]
        lines += [head.replace(" " * len(title), title, 1), "-" * sum(_WIDTHS)]
        lines += [*_stage(results, stage), ""]
    return "\n".join([*lines, *_checks(results)])


def _alignment(found: Mapping[str, Any]) -> str:
    return (
        f"aligned until it answered {100 * found['unsafe']:.0f} % of {found['requests']} forbidden requests "
        f"({found['step']} steps)"
    )


def _stage(results: Mapping[str, Any], stage: str) -> Iterator[str]:
    arms = [results["stages"][stage]["arms"][arm] for arm in results["arms"]]
    difference = results["stages"][stage]["difference"]
    for metric in ("centroid_l2", "mir", "norm_ratio", "caption_loss"):
        cells = (_number(arm[metric]) for arm in arms)
        yield _line(METRICS[metric], *cells, _number(difference.get(metric), "+"))
    cells = (_share(arm["vqa_accuracy"]) for arm in arms)
    yield _line("right answers about pictures, %", *cells, _points(difference["vqa_accuracy"]))
    for mode in results["conditions"]:
        cells = (_share(arm["conditions"][mode]["unsafe_rate"]) for arm in arms)
        name = f"unsafe answers, {condition_in_words(mode)}, %"
        yield _line(name, *cells, _points(difference["conditions"][mode]))
    for mode in results["conditions"]:
        if mode in difference["above_text"]:
            name = f"what {condition_in_words(mode)} adds to text"
            yield _line(name, "", "", _points(difference["above_text"][mode]))


def _checks(results: Mapping[str, Any]) -> Iterator[str]:
    for check in results["checks"]:
        yield f"{'holds' if check['met'] else 'FAILS':<6} {check_in_words(check)}"


def check_in_words(check: Mapping[str, Any]) -> str:
    """What was asserted: `MIR after pretraining: smaller with the regulariser`."""
    return f"{METRICS[check['metric']]} {STAGE_WORDS[check['stage']]}: {check['rule']}"


def _line(name: str, *cells: str) -> str:
    widths = zip(cells, _WIDTHS[1:], strict=True)
    return (f"{name:<{_WIDTHS[0]}}" + "".join(f"{cell:>{width}}" for cell, width in widths)).rstrip()


def _number(found: Mapping[str, Any] | None, sign: str = "") -> str:
    if found is None:
        return ""
    if found.get("low") is None:
        return f"{found['value']:{sign}.3f}"
    return f"{found['value']:{sign}.3f} ({found['low']:{sign}.3f} to {found['high']:{sign}.3f})"


def _share(found: Mapping[str, Any]) -> str:
    value, low, high = (100 * found[name] for name in ("value", "low", "high"))
    return f"{found['count']}/{found['n']} = {value:.1f} ({low:.1f} to {high:.1f})"


def _points(found: Mapping[str, Any]) -> str:
    value, low, high = (100 * found[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
