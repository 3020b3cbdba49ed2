"""What a checkpoint's gap usually is: the band that one input's gap is held against."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from regap_patch.errors import DemoError

SHOWN = ("centroid_l2", "pairwise_sq")
GAP, TRAINING = "gap.json", "regap.json"


@dataclass(frozen=True, slots=True)
class Band:
    """Where a statistic usually lies.

    Attributes:
        low: 5 % of the pairs lie below; None where only the mean is known.
        middle: the median, or the mean where only that is known.
        high: 5 % of the pairs lie above.
    """

    low: float | None
    middle: float
    high: float | None

    def place(self, value: float) -> str:
        """Where a value lies, in words."""
        if self.low is None or self.high is None:
            return f"{value / self.middle:.2f} times the mean" if self.middle else "without a scale"
        if value < self.low:
            return "below the band"
        return "above the band" if value > self.high else "within the band"


@dataclass(frozen=True, slots=True)
class Reference:
    """Bands of a checkpoint.

    Attributes:
        source: where they come from, for people.
        bands: by statistic, those of `SHOWN` that the source holds.
    """

    source: str
    bands: Mapping[str, Band]


def find_reference(checkpoint: str, given: Path | None = None) -> Reference | None:
    """The bands of a checkpoint: a file that was named, else `gap.json` or `regap.json` beside the weights.

    Args:
        checkpoint: folder; anything else has nothing beside it.
        given: what `regap gap` wrote, or a `regap.json`.

    Raises:
        DemoError: a file that holds no gap.
    """
    if given is not None:
        return _read(given)
    beside = (Path(checkpoint) / name for name in (GAP, TRAINING))
    found = next((file for file in beside if file.is_file()), None)
    return None if found is None else _read(found)


def _read(file: Path) -> Reference:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if "samples" in content:
            rows = content["samples"]
            bands = {name: _band([float(row[name]) for row in rows]) for name in SHOWN}
            return Reference(f"{len(rows)} pictures with captions ({file.name})", bands)
        ends = content["gap"]["end"] or {}
        means = {name: Band(None, float(ends[name]), None) for name in SHOWN if name in ends}
        return Reference(f"mean of the last training steps ({file.name})", means)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DemoError(
            f"{file} was to be the reference of a gap, but holds none ({type(error).__name__}: {error}): "
            f"name what `regap gap` wrote."
        ) from error


def _band(values: Sequence[float]) -> Band:
    cuts = quantiles(values, n=20, method="inclusive")
    return Band(cuts[0], cuts[9], cuts[-1])
