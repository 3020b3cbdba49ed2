"""What figures of a page are drawn with: axes, scales, lines and words as inline SVG, without a library."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


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


def axis_around(title: str, values: Iterable[float], *, share: bool = False) -> Axis:
    """An axis with some room on both sides of all values."""
    ends = list(values)
    low, high = min(ends), max(ends)
    margin = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(title, low - margin, high + margin, share=share)


class Scale:
    """From the values of an axis to places on the drawing."""

    def __init__(self, axis: Axis, start: float, end: float) -> None:
        self._low, self._per, self._start = axis.low, (end - start) / (axis.high - axis.low), start

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        return self._start + (value - self._low) * self._per


@dataclass(frozen=True, slots=True)
class Frame:
    """Where on the drawing the values lie."""

    left: float
    right: float
    top: float
    bottom: float

    def grid_across(self, axis: Axis, scale: Scale) -> list[str]:
        """Upright lines at the ticks, with their values and the title below."""
        parts = []
        for tick in axis.ticks():
            at = scale(tick)
            parts.append(line("grid", at, self.top, at, self.bottom))
            parts.append(text(at, self.bottom + 16, axis.text(tick), "middle", TICK))
        middle = (self.left + self.right) / 2
        return [*parts, text(middle, self.bottom + 38, axis.title, "middle")]

    def grid_up(self, axis: Axis, scale: Scale) -> list[str]:
        """Level lines at the ticks, with their values and the title to the left."""
        parts = []
        for tick in axis.ticks():
            at = scale(tick)
            parts.append(line("grid", self.left, at, self.right, at))
            parts.append(text(self.left - 6, at + 4, axis.text(tick), "end", TICK))
        middle, edge = (self.top + self.bottom) / 2, self.left - 50
        turned = {"transform": f"rotate(-90 {edge:.1f} {middle:.1f})"}
        return [*parts, text(edge, middle, axis.title, "middle", turned)]


TICK = {"class": "tick"}


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A `<line>` of a class."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, words: str, anchor: str, attributes: Mapping[str, str] | None = None) -> str:
    """A `<text>`; the words, and the values of its further attributes, are escaped."""
    more = "".join(f' {name}="{html.escape(value)}"' for name, value in (attributes or {}).items())
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{html.escape(words)}</text>'


def svg(width: float, height: float, description: str, parts: Iterable[str]) -> str:
    """An `<svg>` with a name for those who do not see it."""
    name = html.escape(description)
    head = f'<svg class="figure" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{name}">'
    return "".join([head, *parts, "</svg>"])
