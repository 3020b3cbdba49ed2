"""The gap of a checkpoint, from what `regap gap`, `regap mir` or training wrote of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regap_patch.errors import ReportError
from regap_patch.report.json_files import read_json
from regap_patch.report.proportions import LEVEL, normal_quantile

QUANTITIES = {"centroid_l2": "gap between the centroids |mean v - mean t|", "mir": "MIR"}


@dataclass(frozen=True, slots=True)
class GapNumber:
    """One measured quantity of one checkpoint.

    Attributes:
        quantity: centroid_l2 or mir.
        value: as measured.
        low: of a 95 % interval; None without one.
        high: of it.
        source: the file's name.
    """

    quantity: str
    value: float
    low: float | None
    high: float | None
    source: str


def read_gap(path: str | Path) -> list[GapNumber]:
    """The numbers of one file: `regap gap`'s, `regap mir`'s or a checkpoint's `regap.json`.

    Raises:
        ReportError: it is none of them, or its value is no number.
    """
    file = Path(path)
    content = read_json(file, "the gap of a checkpoint")
    try:
        found = [*_mir(content, file.name), *_measured(content, file.name), *_trained(content, file.name)]
    except (TypeError, ValueError):  # a word where a number belongs
        found = []
    if not found or not all(math.isfinite(number.value) for number in found):
        raise ReportError(
            f"{file} was to give the gap of a checkpoint, but holds no finite MIR or centroid_l2: name a "
            f"file that `regap gap` or `regap mir` wrote, or a checkpoint's regap.json."
        )
    return found


def read_gaps(paths: Sequence[Sequence[str | Path]], runs: int) -> list[dict[str, GapNumber]]:
    """By quantity, for each run; a later file of a run overrides an earlier one.

    Args:
        paths: files of each run, in the order of the runs; may be empty.
        runs: how many.

    Raises:
        ReportError: not as many groups as runs, or a file that is none.
    """
    if not paths:
        return [{} for _ in range(runs)]
    if len(paths) != runs:
        raise ReportError(
            f"{len(paths)} files or groups of files with gaps were given for {runs} runs: give one for each, "
            f"in the order of the runs."
        )
    return [{found.quantity: found for path in group for found in read_gap(path)} for group in paths]


def _mir(content: Mapping[str, Any], source: str) -> list[GapNumber]:
    found = content.get("mir")
    if not isinstance(found, Mapping) or found.get("value") is None:
        return []
    return [GapNumber("mir", float(found["value"]), found.get("low"), found.get("high"), source)]


def _measured(content: Mapping[str, Any], source: str) -> list[GapNumber]:
    mean, error = content.get("mean"), content.get("stderr")
    if not isinstance(mean, Mapping) or mean.get("centroid_l2") is None:
        return []
    value = float(mean["centroid_l2"])
    spread = error.get("centroid_l2") if isinstance(error, Mapping) else None
    if spread is None or not math.isfinite(spread):
        return [GapNumber("centroid_l2", value, None, None, source)]
    reach = normal_quantile(LEVEL) * float(spread)
    return [GapNumber("centroid_l2", value, value - reach, value + reach, source)]


def _trained(content: Mapping[str, Any], source: str) -> list[GapNumber]:
    gap = content.get("gap")
    end = gap.get("end") if isinstance(gap, Mapping) else None
    if not isinstance(end, Mapping) or end.get("centroid_l2") is None:
        return []
    return [GapNumber("centroid_l2", float(end["centroid_l2"]), None, None, f"{source}, end of training")]
