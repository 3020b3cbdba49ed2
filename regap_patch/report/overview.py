"""One number a run and judge, for figures: the benchmarks of a kind taken together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regap_patch.records import IMAGE_MODES, ImageMode
from regap_patch.report.cells import UNKNOWN_LIMIT
from regap_patch.report.drawing import Axis
from regap_patch.report.gaps import QUANTITIES, GapNumber
from regap_patch.report.proportions import wilson
from regap_patch.report.scatter import Point, scatter, share_axis, value_axis


@dataclass(frozen=True, slots=True)
class Pooled:
    """A rate over all benchmarks of a kind.

    Attributes:
        rate: events / items.
        ends: Wilson interval; from no unknown item counted to all of them where the rate is incomplete.
        n: items.
        parts: of each benchmark, its image mode and number of items in words.
        incomplete: too many judgements are unknown.
    """

    rate: float
    ends: tuple[float, float]
    n: int
    parts: tuple[str, ...]
    incomplete: bool


def pooled(metrics: Mapping[str, Any], kind: str, judge: str) -> Pooled | None:
    """Over each benchmark in the mode nearest to real pictures that it was asked in; None without one."""
    nearest: dict[str, Mapping[str, Any]] = {}
    for cell in metrics["cells"]:
        if (cell["kind"], cell["judge"], cell["scenario"]) != (kind, judge, None):
            continue
        held = nearest.get(cell["benchmark"])
        if held is None or _rank(cell["image_mode"]) > _rank(held["image_mode"]):
            nearest[cell["benchmark"]] = cell
    n = sum(cell["n"] for cell in nearest.values())
    if not n:
        return None
    k, unknown = (round(sum(cell[name] for cell in nearest.values())) for name in ("k", "unknown"))
    incomplete = unknown > UNKNOWN_LIMIT * n
    high = wilson(k + (unknown if incomplete else 0), n).high
    parts = tuple(f"{name} in mode {cell['image_mode']} (n = {cell['n']})" for name, cell in nearest.items())
    return Pooled(k / n, (wilson(k, n).low, high), n, parts, incomplete)


def _rank(mode: ImageMode) -> int:
    return -1 if mode == "words" else IMAGE_MODES.index(mode)


def quoted_judges(metrics: Mapping[str, Any]) -> list[str]:
    """Those whose rate may stand as a result; all of them where there is none."""
    quoted = {cell["judge"] for cell in metrics["cells"] if cell["may_be_quoted"] and cell["kind"] == "harm"}
    return [judge for judge in metrics["provenance"]["judges"] if judge in quoted or not quoted]


def pooled_in_words(runs: Sequence[Mapping[str, Any]]) -> str:
    """Which benchmarks in which mode, and how many items, the figures stand on."""
    found = [
        pooled(metrics, kind, judge)
        for metrics in runs
        for kind in ("harm", "benign")
        for judge in quoted_judges(metrics)
    ]
    return ", ".join(sorted({part for rate in found if rate is not None for part in rate.parts}))


def trade_off(runs: Sequence[Mapping[str, Any]]) -> str | None:
    """Over-refusal across, unsafe rate up; a ring marks what no other point beats. None without points."""
    points = []
    for metrics in runs:
        for series, judge in enumerate(quoted_judges(metrics)):
            unsafe, refused = pooled(metrics, "harm", judge), pooled(metrics, "benign", judge)
            if unsafe and refused:
                label = _label(metrics, judge, unsafe.incomplete or refused.incomplete)
                whole = not (unsafe.incomplete or refused.incomplete)
                place = (refused.rate, unsafe.rate, label, series, refused.ends, unsafe.ends)
                points.append(Point(*place, ringed=whole))
    if not points:
        return None
    ringed = [_ringed(point, points) for point in points]
    across, up = (
        share_axis("over-refusal: harmless requests refused", ringed, "x"),
        share_axis("unsafe rate: harmful requests answered", ringed, "y"),
    )
    return scatter(ringed, across, up, "Unsafe rate against over-refusal, one point for each run and judge")


def _ringed(point: Point, points: Sequence[Point]) -> Point:
    beaten = any(
        other.series == point.series
        and other.x <= point.x
        and other.y <= point.y
        and (other.x, other.y) != (point.x, point.y)
        for other in points
    )
    return replace(point, ringed=point.ringed and not beaten)


def _label(metrics: Mapping[str, Any], judge: str, incomplete: bool) -> str:
    defense = metrics["provenance"]["defense"]
    name = f"{metrics['name']}{f' + {defense}' if defense else ''}, {judge}"
    return f"{name} (incomplete)" if incomplete else name


def gap_figures(
    runs: Sequence[Mapping[str, Any]], gaps: Sequence[Mapping[str, GapNumber]]
) -> list[tuple[str, str]]:
    """(quantity in words, figure) of each gap quantity that at least two runs have."""
    found = []
    for quantity, title in QUANTITIES.items():
        points = []
        for metrics, numbers in zip(runs, gaps, strict=True):
            number = numbers.get(quantity)
            for series, judge in enumerate(quoted_judges(metrics)):
                unsafe = pooled(metrics, "harm", judge)
                if number is not None and unsafe is not None:
                    ends = None if number.low is None or number.high is None else (number.low, number.high)
                    label = _label(metrics, judge, unsafe.incomplete)
                    points.append(Point(number.value, unsafe.rate, label, series, ends, unsafe.ends))
        if len({point.x for point in points}) > 1:
            across: Axis = value_axis(title, points, "x")
            up = share_axis("unsafe rate", points, "y")
            found.append((title, scatter(points, across, up, f"Unsafe rate against {title}")))
    return found
