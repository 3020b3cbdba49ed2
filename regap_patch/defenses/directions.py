"""Directions in the space of hidden states: the mean of differences, and what they mostly vary along.

Pure torch: no model, no files. All sums are taken in float64, and results are float32. Axes: N anchors, K
layers, D width of the language model, M directions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regap_patch.errors import RowsError


def mean_vector(differences: Tensor) -> Tensor:
    """The mean over anchors: (N, K, D) -> (K, D) float32.

    Raises:
        RowsError: no anchor, or a value that is not finite.
    """
    mean: Tensor = _checked(differences).mean(0)
    return mean.float()


def principal_vector(differences: Tensor) -> Tensor:
    """The first principal component of each layer, with the sign and the length of the mean.

    The component is that of the differences taken both ways (a - b and b - a), so it lies about zero. About
    the mean of one way, what all anchors share would be taken away, and that is the shift that is looked for.

    Args:
        differences: (N, K, D).

    Returns:
        (K, D) float32.

    Raises:
        RowsError: no anchor, a value that is not finite, or a layer whose mean does not say which way the
            component points.
    """
    differences = _checked(differences)
    lengths = differences.mean(0).norm(dim=-1, keepdim=True)
    component: Tensor = _oriented(differences, 1)[:, 0] * lengths
    return component.float()


def span(differences: Tensor, count: int) -> Tensor:
    """The first right singular vectors of each layer, each on the side of the mean.

    Args:
        differences: (N, K, D).
        count: M, how many.

    Returns:
        (K, M, D) float32, of length 1 and at right angles.

    Raises:
        RowsError: fewer anchors than directions, a value that is not finite, or a layer whose mean does not
            say which way the first direction points.
    """
    if count < 1 or count > min(differences.shape[0], differences.shape[-1]):
        raise RowsError(
            f"{count} directions were asked for, but {differences.shape[0]} differences of width "
            f"{differences.shape[-1]} have between 1 and {min(differences.shape[0], differences.shape[-1])}: "
            f"ask for fewer, or give more anchors."
        )
    return _oriented(_checked(differences), count).float()


def agreement(differences: Tensor) -> tuple[Tensor, Tensor]:
    """How far one direction speaks for all anchors.

    Args:
        differences: (N, K, D).

    Returns:
        (K,) float32 share of the squared length that lies along the first component, and (K,) float32 cosine
        between that component and the mean: near 1, the two kinds of vector are one.
    """
    differences = _checked(differences)
    first, mean = _oriented(differences, 1)[:, 0], differences.mean(0)
    along = torch.einsum("nkd,kd->nk", differences, first).square().sum(0)
    cosine = (first * mean).sum(-1) / mean.norm(dim=-1)
    return (along / differences.square().sum((0, 2))).float(), cosine.float()


def moved_along(states: Tensor, directions: Tensor, alpha: float, *, replace: bool = False) -> Tensor:
    """States whose part along the first direction is positive, moved by `alpha` of their part in the span.

    Args:
        states: (..., D).
        directions: (M, D), of length 1 and at right angles, the first oriented.
        alpha: of the part in the span.
        replace: take that part away from every state first.

    Returns:
        (..., D), of the dtype of `states`; the same values where nothing moves.
    """
    values = states.float()
    coordinates = values @ directions.T
    inside = coordinates @ directions
    gate = coordinates[..., :1] > 0
    moved = torch.where(gate, values + alpha * inside, values)
    if replace:
        return (moved - inside).to(states.dtype)
    return torch.where(gate, moved.to(states.dtype), states)


def _oriented(differences: Tensor, count: int) -> Tensor:
    """(N, K, D) float64 -> (K, M, D) float64, of length 1 and none on the far side of the mean."""
    _, _, right = torch.linalg.svd(differences.transpose(0, 1), full_matrices=False)
    directions = right[:, :count]
    side = torch.einsum("kmd,kd->km", directions, differences.mean(0))
    unclear = (side[:, 0] == 0).nonzero().flatten().tolist()
    if unclear:
        raise RowsError(
            f"The differences of layer {unclear[0] + 1} cancel out along their own direction, so nothing "
            f"says which way it points: give anchors whose two sides differ."
        )
    oriented: Tensor = directions * torch.where(side < 0, -1.0, 1.0)[..., None]
    return oriented


def _checked(differences: Tensor) -> Tensor:
    if differences.shape[0] == 0:
        raise RowsError("A direction was to be taken of 0 differences: give at least one anchor.")
    if not differences.isfinite().all():
        raise RowsError(
            "A direction was to be taken of differences that are not all finite: run the model in float32 or "
            "bfloat16 (--dtype)."
        )
    return differences.double()
