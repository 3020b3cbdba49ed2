"""Scatter plots with error bars as inline SVG: no request; the page's own colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regap_patch.report.drawing import Axis, Frame, Scale, axis_around, line, svg, text

WIDTH, HEIGHT = 560, 360
_FRAME = Frame(left=64, right=WIDTH - 26, top=14, bottom=HEIGHT - 48)


@dataclass(frozen=True, slots=True)
class Point:
    """One mark.

    Attributes:
        x: value.
        y: value.
        label: written beside it.
        series: number of the colour.
        x_ends: of its interval; None without.
        y_ends: of its interval; None without.
        ringed: drawn with a ring around it.
    """

    x: float
    y: float
    label: str
    series: int = 0
    x_ends: tuple[float, float] | None = None
    y_ends: tuple[float, float] | None = None
    ringed: bool = False


def share_axis(title: str, points: Sequence[Point], of: str) -> Axis:
    """From 0 to a little above the highest end."""
    highest = max((_highest(point, of) for point in points), default=0.0)
    return Axis(title, 0.0, min(1.0, max(0.05, highest * 1.08)), share=True)


def value_axis(title: str, points: Sequence[Point], of: str) -> Axis:
    """Around all values."""
    return axis_around(
        title, (end for point in points for end in (*(_ends(point, of) or ()), getattr(point, of)))
    )


def scatter(points: Sequence[Point], x: Axis, y: Axis, description: str) -> str:
    """An `<svg>` element; all text in it is escaped."""
    across, up = Scale(x, _FRAME.left, _FRAME.right), Scale(y, _FRAME.bottom, _FRAME.top)
    marks = (_mark(point, across, up) for point in points)
    parts = [*_FRAME.grid_across(x, across), *_FRAME.grid_up(y, up), *marks]
    return svg(WIDTH, HEIGHT, description, parts)


def _mark(point: Point, across: Scale, up: Scale) -> str:
    x, y = across(point.x), up(point.y)
    parts = [f'<g class="series{point.series % 6}">']
    if point.x_ends:
        parts.append(line("bar", across(point.x_ends[0]), y, across(point.x_ends[1]), y))
    if point.y_ends:
        parts.append(line("bar", x, up(point.y_ends[0]), x, up(point.y_ends[1])))
    if point.ringed:
        parts.append(f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="9"/>')
    parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/></g>')
    anchor, shift = ("start", 9) if x < WIDTH * 0.7 else ("end", -9)
    return "".join([*parts, text(x + shift, y - 7, point.label, anchor)])


def _ends(point: Point, of: str) -> tuple[float, float] | None:
    return point.x_ends if of == "x" else point.y_ends


def _highest(point: Point, of: str) -> float:
    return max(point.x if of == "x" else point.y, *(_ends(point, of) or (0.0,)))
