"""Figures as files: PNG or SVG by the suffix, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from regap_patch.errors import ReportError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of this many inches.

    Raises:
        ReportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ReportError(
            f"A plot needs matplotlib, but importing it failed ({error}): pip install matplotlib."
        ) from error
    return Figure(figsize=size, layout="constrained")


def save_figure(draw: Callable[[], Figure], output_path: str | Path) -> Path:
    """Draw a figure into a file.

    Args:
        draw: makes the figure; called only if the file can have a format.
        output_path: its suffix says PNG or SVG.

    Raises:
        ReportError: another suffix, or matplotlib is not installed.
    """
    path = Path(output_path)
    if path.suffix.lower() not in SUFFIXES:
        raise ReportError(
            f"The plot was to be written to {path}, but {path.suffix or 'no suffix'} is no format that "
            f"it can have: end the name in {' or '.join(SUFFIXES)}."
        )
    figure = draw()
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with matplotlib.rc_context({"svg.fonttype": "none"}):  # words stay words: they can be searched
            figure.savefig(aside, format=path.suffix[1:].lower(), dpi=130)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path
