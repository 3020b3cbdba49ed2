"""Two measurements on the same pairs: how far apart they are, with an interval.

Both saw the same pairs, so what a pair adds to one it mostly adds to the other, and the difference is known
better than either value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from regap_patch.errors import MeasureError
from regap_patch.gap.integration_rate import MirResult, mir_difference
from regap_patch.measure.results import LEVEL, MIR_SCHEMA, read_result

SAME = (
    ("the number of pairs", ("data", "pairs")),
    ("the images", ("data", "images", "sha256")),
    ("the texts", ("data", "texts", "sha256")),
    ("the template", ("data", "template")),
    ("the length at which texts are cut", ("data", "max_text_tokens")),
)


@dataclass(frozen=True)
class Comparison:
    """The second MIR minus the first.

    Attributes:
        first: file of the first.
        second: file of the second.
        difference: corrected for bias where both are.
        stderr: over pairs.
        low: lower end of the interval.
        high: upper end of the interval.
        level: of the interval.
        pairs: how many.
    """

    first: str
    second: str
    difference: float
    stderr: float
    low: float
    high: float
    level: float
    pairs: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": "regap.mir-difference/1", **asdict(self)}

    def sentence(self) -> str:
        """In words."""
        return (
            f"MIR of {self.second} minus that of {self.first}: {self.difference:+.4f}, {self.level:.0%} "
            f"interval {self.low:+.4f} to {self.high:+.4f} ({self.pairs} pairs)"
        )


def compare_mir(first: str | Path, second: str | Path) -> Comparison:
    """Compare two `mir.json`.

    Raises:
        MeasureError: one cannot be read, they differ in pairs, data, template or depth, or one has no
            influences of its pairs.
    """
    files = [Path(first), Path(second)]
    found = [read_result(path, MIR_SCHEMA) for path in files]
    difference = difference_of(found[0], found[1], str(first), str(second))
    low, high = difference.interval(LEVEL)
    return Comparison(
        str(first), str(second), difference.value, difference.stderr, low, high, LEVEL, difference.pairs
    )


def difference_of(first: Mapping[str, Any], second: Mapping[str, Any], *names: str) -> Any:
    """The paired difference of two results, as a `MirDifference`.

    Raises:
        MeasureError: as `compare_mir`.
    """
    for what, path in SAME:
        values = [_follow(result, path) for result in (first, second)]
        if values[0] != values[1]:
            raise MeasureError(
                f"{names[0]} and {names[1]} cannot be compared, because they differ in {what} "
                f"({_short(values[0])} and {_short(values[1])}): measure both on the same pairs."
            )
    depths = [len(result["layers"]) for result in (first, second)]
    if depths[0] != depths[1]:
        raise MeasureError(
            f"{names[0]} and {names[1]} cannot be compared, because MIR grows with depth and they have "
            f"{depths[0]} and {depths[1]} layers: compare checkpoints of one language model."
        )
    return mir_difference(_result(first, names[0]), _result(second, names[1]))


def _result(found: Mapping[str, Any], name: str) -> MirResult:
    value = found["mir"]["value"]
    if found["influence"] is None or value is None:
        why = found["mir"]["reason"] or f"it was taken in the {found['evaluation']['mode']} mode"
        raise MeasureError(
            f"{name} cannot be compared, because it holds no influence of its pairs ({why}): measure it "
            f"layer by layer."
        )
    influence = torch.tensor(found["influence"], dtype=torch.float64)
    return MirResult(value, (), corrected=found["mir"]["corrected"], influence=influence)


def _follow(found: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
