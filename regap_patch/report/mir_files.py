"""What `regap mir` measured, read from the `mir.json` that it left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regap_patch.errors import ReportError

SCHEMA = "regap.mir/"
PER_LAYER = ("frechet", "mean_part", "image_norm", "text_norm", "cosine")


@dataclass(frozen=True, slots=True)
class FlatPicture:
    """Rows of one layer along their first two principal directions.

    Attributes:
        layer: which; 0 is the language model's input.
        image: points (x, y) of image rows.
        text: points (x, y) of text rows.
        explained: share of the variance of the rows shown, for each direction.
    """

    layer: int
    image: list[tuple[float, float]]
    text: list[tuple[float, float]]
    explained: list[float]


@dataclass(frozen=True, slots=True)
class MirFile:
    """One measurement.

    Attributes:
        name: how a figure calls it.
        series: by key, (layer, value) from layer 0 on; layer 0 is not in MIR.
        curve: (pairs, MIR, standard error or None), by pairs.
        pictures: of the layers that were asked for.
    """

    name: str
    series: dict[str, list[tuple[int, float]]]
    curve: list[tuple[int, float, float | None]]
    pictures: list[FlatPicture]


def is_mir_file(path: str | Path) -> bool:
    """Whether this is a JSON file that `regap mir` wrote."""
    file = Path(path)
    if file.suffix != ".json" or not file.is_file():
        return False
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["schema"]).startswith(SCHEMA)
    except (ValueError, KeyError, TypeError):
        return False


def read_mir_file(path: str | Path) -> MirFile:
    """Read one.

    Raises:
        ReportError: it cannot be read, or is none.
    """
    file = Path(path)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        layers = [found["layer_zero"], *found["layers"]]
        return MirFile(
            file.stem,
            {key: [(int(row["layer"]), float(row[key])) for row in layers] for key in PER_LAYER},
            [(at["pairs"], at["value"], at["stderr"]) for at in found["curve"] if at["value"] is not None],
            [_picture(row) for row in found["projections"]],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReportError(
            f"{file} cannot be read as a result of `regap mir` ({type(error).__name__}: {error}): name a "
            f"mir.json that this version wrote."
        ) from error


def read_mir_files(paths: Sequence[str | Path]) -> list[MirFile]:
    """Read several; those that would share a name are called by the paths given.

    Raises:
        ReportError: as `read_mir_file`.
    """
    files = [read_mir_file(path) for path in paths]
    names = [file.name for file in files]
    return [
        replace(file, name=str(path)) if names.count(file.name) > 1 else file
        for file, path in zip(files, paths, strict=True)
    ]


def _picture(row: dict[str, Any]) -> FlatPicture:
    image, text = ([(float(x), float(y)) for x, y in row[kind]] for kind in ("image", "text"))
    return FlatPicture(int(row["layer"]), image, text, [float(share) for share in row["explained"]])
