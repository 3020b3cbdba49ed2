"""A flat picture of two clouds: their rows along the two directions in which they spread most.

Axes: n rows of each kind, D width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from regap_patch.gap.clouds import Cloud, Rows
from regap_patch.gap.precision import at_least_float32

SHOWN = 300  # rows of each kind


@dataclass(frozen=True)
class Projection:
    """Rows along the first two principal directions of both clouds together.

    Attributes:
        layer: of which the rows are.
        image: (n, 2), as lists, in the unit of the hidden states.
        text: (n, 2).
        explained: share of the variance of the rows shown, for each direction.
    """

    layer: int
    image: list[list[float]]
    text: list[list[float]]
    explained: list[float]

    def to_dict(self) -> dict[str, Any]:
        """As it is written to `mir.json`."""
        return asdict(self)


def project(layer: int, image: Rows, text: Rows) -> Projection:
    """Project evenly chosen rows, as many of either kind.

    Args:
        layer: only written down.
        image: (N, D), or one (n_i, D) for each sample.
        text: the same.
    """
    count = min(SHOWN, _count(image), _count(text))
    shown = torch.cat([_evenly(image, count), _evenly(text, count)]).cpu()
    centred = shown - shown.mean(0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    flat = centred @ (directions * largest.sign()).t()
    flat = torch.nn.functional.pad(flat, (0, 2 - flat.shape[1]))  # rows of width 1 lie on a line
    share = (sizes.square() / sizes.square().sum().clamp(min=1e-30))[:2]
    places = [[round(value, 4) for value in row] for row in flat.double().tolist()]
    return Projection(layer, places[:count], places[count:], [round(float(part), 4) for part in share])


def _count(rows: Rows) -> int:
    return Cloud.of(rows).count


def _evenly(rows: Rows, count: int) -> Tensor:
    whole = torch.cat(Cloud.of(rows).samples)
    chosen = torch.linspace(0, len(whole) - 1, count, device=whole.device).round().long()
    return at_least_float32(whole[chosen])
