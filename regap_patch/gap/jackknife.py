"""The term without each group of pairs: what the jackknife takes the bias of MIR from.

F is biased upwards like 1 / m. With G groups left out in turn, G F - (G - 1) mean F_(-g) is free of that.
Pairs are dealt to the groups in turn, so that an order in the data falls evenly. Outlying rows and what
stands in for them stay those of all pairs; the scale is taken anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regap_patch.errors import RowsError
from regap_patch.gap.clouds import Cloud
from regap_patch.gap.frechet import parts_of_moments
from regap_patch.gap.moments import Moments, moments_of, sums_of
from regap_patch.gap.outliers import Replacement


def frechet_without_groups(
    clouds: tuple[Cloud, Cloud],
    replacements: tuple[Replacement, Replacement],
    moments: tuple[Moments, Moments],
    text_norms: Tensor,
    groups: int,
    products: torch.dtype,
) -> tuple[float, ...]:
    """s^2 F without each of G groups of pairs.

    Args:
        clouds: image rows and text rows of m pairs.
        replacements: of the outlying rows of each.
        moments: of each, all pairs.
        text_norms: |t_j|, (M,) float64.
        groups: G, at most m.
        products: dtype of the products.

    Returns:
        G numbers. Cost: the covariances once more, and O(D^3) a group.

    Raises:
        RowsError: where fewer than two rows are left without a group.
    """
    pairs = len(clouds[0].samples)
    norms = torch.split_with_sizes(text_norms, clouds[1].lengths)
    found = []
    for group in range(groups):
        left = [pair for pair in range(pairs) if pair % groups == group]
        rest = [pair for pair in range(pairs) if pair % groups != group]
        sides = [
            _without(cloud, replacement, whole, (left, rest), products)
            for cloud, replacement, whole in zip(clouds, replacements, moments, strict=True)
        ]
        scale = 1.0 / torch.cat([norms[pair] for pair in rest]).mean()
        found.append(float(scale.square() * parts_of_moments(sides[0], sides[1]).distance))
    return tuple(found)


def _without(
    cloud: Cloud,
    replacement: Replacement,
    whole: Moments,
    pairs: tuple[list[int], list[int]],
    products: torch.dtype,
) -> Moments:
    """Moments of the rest: what is left out is subtracted, unless the rest has no more rows than columns."""
    left, rest = pairs
    remaining = cloud.choose(rest)
    if remaining.count < 2:
        raise RowsError(
            f"The jackknife leaves {remaining.count} of the {cloud.name} when a group is out, but a distance "
            f"needs two or more: give more pairs, or no groups."
        )
    if remaining.count <= cloud.width:
        return moments_of(remaining, replacement.choose(cloud.lengths, rest), products)
    out = sums_of(cloud.choose(left), replacement.choose(cloud.lengths, left), products)
    return whole.without(out.moments())
