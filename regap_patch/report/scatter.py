"""Scatter plots with error bars as inline SVG: no library, no request; the page's own colours."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 560, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 26, 14, 48


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


@dataclass(frozen=True, slots=True)
class Axis:
    """Title and range; a share runs from 0 and is written in percent."""

    title: str
    low: float
    high: float
    share: bool = False

    def ticks(self) -> list[float]:
        """About five round values within the range."""
        span = self.high - self.low
        step = 10 ** math.floor(math.log10(span / 4))
        step *= next(times for times in (1, 2, 5, 10) if span / (step * times) <= 6)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def text(self, value: float) -> str:
        """How a tick is written."""
        return f"{100 * value:g} %" if self.share else f"{value:.4g}"


def share_axis(title: str, points: Sequence[Point], of: str) -> Axis:
    """From 0 to a little above the highest end."""
    highest = max((_highest(point, of) for point in points), default=0.0)
    return Axis(title, 0.0, min(1.0, max(0.05, highest * 1.08)), share=True)


def value_axis(title: str, points: Sequence[Point], of: str) -> Axis:
    """Around all values."""
    ends = [end for point in points for end in (*(_ends(point, of) or ()), getattr(point, of))]
    low, high = min(ends), max(ends)
    margin = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(title, low - margin, high + margin)


def scatter(points: Sequence[Point], x: Axis, y: Axis, description: str) -> str:
    """An `<svg>` element; all text in it is escaped."""
    across, up = _scale(x, _LEFT, WIDTH - _RIGHT), _scale(y, HEIGHT - _BOTTOM, _TOP)
    name = html.escape(description)
    parts = [f'<svg class="figure" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">']
    for tick in x.ticks():
        at = across(tick)
        parts.append(_line("grid", at, _TOP, at, HEIGHT - _BOTTOM))
        parts.append(_text(at, HEIGHT - _BOTTOM + 16, x.text(tick), "middle"))
    for tick in y.ticks():
        at = up(tick)
        parts.append(_line("grid", _LEFT, at, WIDTH - _RIGHT, at))
        parts.append(_text(_LEFT - 6, at + 4, y.text(tick), "end"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 10, x.title, "middle"))
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text x="14" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 14 {middle:.1f})">'
        f"{html.escape(y.title)}</text>"
    )
    parts += [_mark(point, across, up) for point in points]
    return "".join([*parts, "</svg>"])


def _mark(point: Point, across: _Scale, up: _Scale) -> str:
    x, y = across(point.x), up(point.y)
    parts = [f'<g class="series{point.series % 6}">']
    if point.x_ends:
        parts.append(_line("bar", across(point.x_ends[0]), y, across(point.x_ends[1]), y))
    if point.y_ends:
        parts.append(_line("bar", x, up(point.y_ends[0]), x, up(point.y_ends[1])))
    if point.ringed:
        parts.append(f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="9"/>')
    parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/></g>')
    anchor, shift = ("start", 9) if x < WIDTH * 0.7 else ("end", -9)
    return "".join([*parts, _text(x + shift, y - 7, point.label, anchor)])


class _Scale:
    """From values to places on the drawing."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._per, self._start = low, (end - start) / (high - low), start

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) * self._per


def _scale(axis: Axis, start: float, end: float) -> _Scale:
    return _Scale(axis.low, axis.high, start, end)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _ends(point: Point, of: str) -> tuple[float, float] | None:
    return point.x_ends if of == "x" else point.y_ends


def _highest(point: Point, of: str) -> float:
    return max(point.x if of == "x" else point.y, *(_ends(point, of) or (0.0,)))
