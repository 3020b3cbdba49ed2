"""Losses, gap, norms and direction against optimizer steps, for one run or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regap_patch.report.figures import new_figure, save_figure
from regap_patch.report.runs import RunLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = ("-", "--")


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes: its title and the keys that it draws, the first solid, the second dashed."""

    title: str
    keys: tuple[str, ...]
    scale: str = "linear"


PANELS = (
    Panel("losses: LM (solid), weighted gap (dashed)", ("loss_lm", "loss_weighted")),
    Panel("gap between the centroids |mean v - mean t|", ("centroid_l2",)),
    Panel("mean norms: image (solid), text (dashed)", ("image_norm", "text_norm"), "log"),
    Panel("cosine of the centroids", ("cosine",)),
)


def _draw(axes: Axes, panel: Panel, runs: Sequence[RunLog]) -> None:
    for number, run in enumerate(runs):
        drawn = [(key, style) for key, style in zip(panel.keys, _STYLES, strict=False) if key in run.series]
        for key, style in drawn:
            steps, values = zip(*run.series[key], strict=True)
            label = run.name if key == panel.keys[0] else None
            marker = "." if len(steps) == 1 else ""  # a line of a single point would not be seen
            axes.plot(steps, values, style, color=f"C{number % 10}", marker=marker, lw=1.2, label=label)
    axes.set(title=panel.title, xlabel="optimizer step", yscale=panel.scale)
    axes.grid(alpha=0.3)


def draw_runs(runs: Sequence[RunLog]) -> Figure:
    """Four panels; each run has one colour in all of them.

    Raises:
        ReportError: matplotlib is not installed.
    """
    figure = new_figure((11, 7))
    for axes, panel in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        _draw(axes, panel, runs)
    figure.axes[0].legend(frameon=False)
    return figure


def plot_runs(runs: Sequence[RunLog], output_path: str | Path) -> Path:
    """Draw the runs into a file, whole or not at all.

    Args:
        runs: from `read_runs`.
        output_path: its suffix says PNG or SVG.

    Raises:
        ReportError: another suffix, or matplotlib is not installed.
    """
    return save_figure(lambda: draw_runs(runs), output_path)
