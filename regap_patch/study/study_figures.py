"""The study's three figures as inline SVG; what is written beside a mark carries its source."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from regap_patch.report.drawing import Axis, Frame, Scale, axis_around, line, svg, text

from .page_markup import markup
from .page_numbers import Words

_ROW = 22


@dataclass(frozen=True, slots=True)
class Estimate:
    """A difference of rates.

    Attributes:
        name: written to its left.
        at: the difference.
        ends: of its interval; None without.
        words: written to its right.
        pooled: over all others: drawn as a diamond, below them.
    """

    name: Words
    at: float
    ends: tuple[float, float] | None
    words: Words
    pooled: bool = False

    @property
    def places(self) -> list[float]:
        """Of the estimate and of both ends, in percentage points."""
        return [100 * value for value in (self.at, *(self.ends or ()))]


def forest(estimates: Sequence[Estimate], margin: float, title: str, description: str) -> str:
    """One line an estimate, those that are pooled last.

    Args:
        estimates: at least one.
        margin: a second upright line stands at minus this share.
        title: of the axis.
        description: for those who do not see it.
    """
    rows = sorted(estimates, key=lambda estimate: estimate.pooled)
    width, top = 760, 10
    frame = Frame(150, width - 190, top, top + _ROW * (len(rows) + 0.5))
    places = [place for row in rows for place in row.places]
    axis = axis_around(title, [*places, 0.0, -100 * margin])
    across = Scale(axis, frame.left, frame.right)
    parts = [
        *frame.grid_across(axis, across),
        _upright("zero", across(0.0), frame),
        _upright("margin", across(-100 * margin), frame),
    ]
    for number, row in enumerate(rows):
        y = top + _ROW * (number + 0.75)
        parts.append(_words(frame.left - 10, y + 4, row.name, "end"))
        parts += _diamond(row, across, y) if row.pooled else _dot(row, across, y)
        parts.append(_words(frame.right + 12, y + 4, row.words, "start"))
    return svg(width, frame.bottom + 48, description, parts)


def _dot(row: Estimate, across: Scale, y: float) -> list[str]:
    x, *ends = map(across, row.places)
    bar = [line("bar", ends[0], y, ends[1], y)] if ends else []
    return ['<g class="series0">', *bar, f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/></g>']


def _diamond(row: Estimate, across: Scale, y: float) -> list[str]:
    x, *ends = map(across, row.places)
    low, high = ends or (x - 6, x + 6)
    corners = f"{low:.1f},{y:.1f} {x:.1f},{y - 7:.1f} {high:.1f},{y:.1f} {x:.1f},{y + 7:.1f}"
    return [f'<g class="series1"><polygon class="dot" points="{corners}"/></g>']


class Mark(NamedTuple):
    """A point of a scatter plot, and the number of its colour."""

    x: float
    y: float
    series: int


def cloud(marks: Sequence[Mark], names: Sequence[str], titles: tuple[str, str], description: str) -> str:
    """A scatter plot around 0, each series in its own colour and shape.

    Args:
        marks: at least one.
        names: of the series.
        titles: of both axes.
        description: for those who do not see it.
    """
    frame = Frame(64, 734, 34, 340)
    x, y = (axis_around(title, (mark[number] for mark in marks)) for number, title in enumerate(titles))
    across, up = Scale(x, frame.left, frame.right), Scale(y, frame.bottom, frame.top)
    parts = [*frame.grid_across(x, across), *frame.grid_up(y, up), *_legend(names, frame)]
    parts += [_symbol(mark.series, across(mark.x), up(mark.y)) for mark in marks]
    return svg(760, 392, description, parts)


class Curve(NamedTuple):
    """A line of a figure over training: (step, value) in order, and the number of its colour."""

    points: Sequence[tuple[float, float]]
    series: int


def courses(
    curves: Sequence[Curve], names: Sequence[str], border: float, titles: tuple[str, str], description: str
) -> str:
    """Lines over training steps.

    Args:
        curves: at least one with two points.
        names: of the series.
        border: step at which the second stage begins.
        titles: of both axes.
        description: for those who do not see it.
    """
    frame = Frame(64, 734, 34, 340)
    steps = [step for curve in curves for step, _ in curve.points]
    highest = max(value for curve in curves for _, value in curve.points)
    x, y = Axis(titles[0], 0.0, max(*steps, 1.0)), Axis(titles[1], 0.0, 1.08 * highest or 1.0)
    across, up = Scale(x, frame.left, frame.right), Scale(y, frame.bottom, frame.top)
    parts = [*frame.grid_across(x, across), *frame.grid_up(y, up), *_legend(names, frame)]
    if border:
        parts.append(_upright("zero", across(border), frame))
        parts.append(text(across(border) + 5, frame.top + 14, "fine-tuning begins", "start"))
    for curve in curves:
        places = " ".join(f"{across(step):.1f},{up(value):.1f}" for step, value in curve.points)
        parts.append(f'<polyline class="course series{curve.series}" points="{places}"/>')
    return svg(760, 392, description, parts)


def _legend(names: Sequence[str], frame: Frame) -> list[str]:
    parts, x = [], frame.left
    for number, name in enumerate(names):
        parts.append(_symbol(number, x + 6, frame.top - 18))
        parts.append(text(x + 16, frame.top - 14, name, "start"))
        x += 40 + 7 * len(name)
    return parts


def _symbol(series: int, x: float, y: float) -> str:
    """Colour and shape, for those who tell colours badly and for print."""
    if series % 2 == 0:
        shape = f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    else:
        shape = f'<path class="ring" d="M{x - 4:.1f} {y - 4:.1f}h8v8h-8z"/>'
    return f'<g class="series{series}">{shape}</g>'


def _upright(kind: str, x: float, frame: Frame) -> str:
    return line(kind, x, frame.top, x, frame.bottom)


def _words(x: float, y: float, words: Words, anchor: str) -> str:
    inside = markup(words, "tspan")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{html.escape(anchor)}">{inside}</text>'


def thinned(points: Iterable[tuple[float, float]], most: int = 120) -> list[tuple[float, float]]:
    """Every n-th point, and always the last."""
    every = list(points)
    apart = max(1, -(-len(every) // most))
    return every[::apart] + ([every[-1]] if every and (len(every) - 1) % apart else [])
