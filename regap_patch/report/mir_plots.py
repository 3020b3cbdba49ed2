"""MIR layer by layer, for one checkpoint or several, and flat pictures of image rows and text rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regap_patch.report.figures import new_figure, save_figure
from regap_patch.report.mir_files import FlatPicture, MirFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_mir(files: Sequence[MirFile]) -> Figure:
    """Four panels, one colour a checkpoint; below them a row of flat pictures for each that has some.

    Raises:
        ReportError: matplotlib is not installed.
    """
    with_pictures = [file for file in files if file.pictures]
    columns = max([len(file.pictures) for file in with_pictures], default=0)
    figure = new_figure((11, 7 + 2.4 * len(with_pictures)))
    parts: Any = figure.subfigures(2, 1, height_ratios=[7, 2.4 * len(with_pictures)]) if columns else [figure]
    terms, norms, cosine, curve = parts[0].subplots(2, 2).flat
    for number, file in enumerate(files):
        _draw_layers(file, f"C{number % 10}", terms, norms, cosine)
        _draw_curve(file, f"C{number % 10}", curve)
    for axes, title in (
        (terms, "Frechet term (solid), its mean part (dashed); layer 0 (dot) is not in MIR"),
        (norms, "mean norms: image (solid), text (dashed)"),
        (cosine, "cosine of the centroids"),
    ):
        axes.set(title=title, xlabel="layer (0: the language model's input)")
        axes.xaxis.get_major_locator().set_params(integer=True)
    terms.set_yscale("log")
    norms.set_yscale("log")
    curve.set(title="MIR, 1.96 standard errors to either side", xlabel="image-text pairs")
    for axes in (terms, norms, cosine, curve):
        axes.title.set_size(9)
        axes.grid(alpha=0.3)
    terms.legend(frameon=False)
    if columns:
        _draw_pictures(parts[1], with_pictures, columns)
    return figure


def plot_mir(files: Sequence[MirFile], output_path: str | Path) -> Path:
    """Draw the measurements into a file, whole or not at all.

    Args:
        files: from `read_mir_files`.
        output_path: its suffix says PNG or SVG.

    Raises:
        ReportError: another suffix, or matplotlib is not installed.
    """
    return save_figure(lambda: draw_mir(files), output_path)


def _draw_layers(file: MirFile, colour: str, terms: Axes, norms: Axes, cosine: Axes) -> None:
    for axes, key, style in (
        (terms, "frechet", "-"),
        (terms, "mean_part", "--"),
        (norms, "image_norm", "-"),
        (norms, "text_norm", "--"),
        (cosine, "cosine", "-"),
    ):
        series = file.series[key]
        shown = series[1:] if axes is terms else series
        layers, values = zip(*shown, strict=True)
        label = file.name if key == "frechet" else None
        axes.plot(layers, values, style, color=colour, marker=".", ms=4, lw=1.2, label=label)
    terms.plot(*file.series["frechet"][0], "o", color=colour, ms=6)


def _draw_curve(file: MirFile, colour: str, axes: Axes) -> None:
    if file.curve:
        pairs, values, errors = zip(*file.curve, strict=True)
        halves = [1.96 * (error or 0.0) for error in errors]
        axes.errorbar(pairs, values, halves, color=colour, marker="o", ms=4, lw=1.2, capsize=3)


def _draw_pictures(part: Any, files: Sequence[MirFile], columns: int) -> None:
    grid = part.subplots(len(files), columns, squeeze=False)
    for row, file in zip(grid, files, strict=True):
        for axes, picture in zip(row, file.pictures, strict=False):
            _draw_picture(axes, picture)
        for axes in row[len(file.pictures) :]:
            axes.set_visible(False)
        row[0].set_ylabel(file.name, fontsize=8)
    grid[0][0].legend(frameon=False, fontsize=8)


def _draw_picture(axes: Axes, picture: FlatPicture) -> None:
    for points, colour, label in ((picture.image, "C1", "image rows"), (picture.text, "C0", "text rows")):
        across, up = zip(*points, strict=True)
        axes.scatter(across, up, s=4, alpha=0.5, color=colour, label=label)
    share = ", ".join(f"{part:.0%}" for part in picture.explained)
    axes.set_title(f"layer {picture.layer}: two principal directions ({share} of the variance)", fontsize=7)
    axes.tick_params(labelsize=6)
