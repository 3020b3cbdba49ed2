"""The losses that pull image rows towards text rows, one number per sample.

v are the image rows of a sample, t its text rows. Axes: B batch, S image slots, P rows in a slot, T text
rows, D width.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from regap_patch.errors import ConfigError
from regap_patch.gap.catalog import LOSSES_IN_WORDS
from regap_patch.gap.precision import without_autocast
from regap_patch.gap.rows import ModalityRows

# The square root has no gradient at 0, where a loss that works ends up; this much inside the root is 1e-6
# outside.
EPS = 1e-12


def centroid_sq(rows: ModalityRows) -> Tensor:
    """|mean v - mean t|^2: (B,). Every image row of a sample gets the same gradient."""
    return (rows.image_average(rows.image) - rows.text_average(rows.text)).square().sum(-1)


def centroid_l2(rows: ModalityRows) -> Tensor:
    """|mean v - mean t|: (B,). The pull has one size, however near the means are."""
    return (centroid_sq(rows) + EPS).sqrt()


def pairwise_sq(rows: ModalityRows) -> Tensor:
    """Mean |v_i - t_j|^2: (B,), as mean |v_i - mean t|^2 + tr Cov t, in O((n + m) D) instead of O(n m D)."""
    text_mean = rows.text_average(rows.text)
    around_text = rows.image_average((rows.image - rows.to_slots(text_mean)[:, None]).square().sum(-1))
    return around_text + rows.text_average((rows.text - text_mean[:, None]).square().sum(-1))


def pairwise_l2(rows: ModalityRows) -> Tensor:
    """Mean |v_i - t_j|: (B,), O(n m D).

    The squared distances come from one matrix product of rows centred at the text mean: without the centring,
    near pairs far from the origin would lose their digits in float32.
    """
    text_mean = rows.text_average(rows.text)
    image = rows.image - rows.to_slots(text_mean)[:, None]
    text = rows.to_slots(rows.text - text_mean[:, None])
    cross = image @ text.transpose(1, 2)
    squares = image.square().sum(-1)[:, :, None] + text.square().sum(-1)[:, None, :] - 2.0 * cross
    pairs = rows.image_mask[:, :, None] & rows.to_slots(rows.text_mask)[:, None, :]
    total = ((squares.clamp(min=0.0) + EPS).sqrt() * pairs.to(squares.dtype)).sum((1, 2))
    return rows.to_samples(total) / (rows.image_count() * rows.text_count()).clamp(min=1)


def norm_match(rows: ModalityRows) -> Tensor:
    """(mean |v_i| - mean |t_j|)^2: (B,). Leaves directions alone."""
    image_norm = rows.image_average((rows.image.square().sum(-1) + EPS).sqrt())
    text_norm = rows.text_average((rows.text.square().sum(-1) + EPS).sqrt())
    return (image_norm - text_norm).square()


def off(rows: ModalityRows) -> Tensor:
    """Zero: (B,)."""
    return rows.text.new_zeros(rows.batch)


LOSSES: dict[str, Callable[[ModalityRows], Tensor]] = {
    loss.__name__: loss for loss in (centroid_l2, centroid_sq, pairwise_l2, pairwise_sq, norm_match, off)
}


def gap_loss(name: str, rows: ModalityRows) -> Tensor:
    """The gap of each sample, in float32 or better under any autocast.

    Args:
        name: a key of `LOSSES`.
        rows: image rows (S, P, D) with graph, text rows (B, T, D), and their masks.

    Returns:
        (B,) float32 (float64 for float64 rows). A sample without rows of one kind has a finite, meaningless
        value and finite gradient: multiply it by `rows.valid()`.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in LOSSES:
        raise ConfigError(f"The loss {name!r} is not known: choose one of {', '.join(LOSSES_IN_WORDS)}.")
    rows = rows.in_full_precision()
    with without_autocast(rows.image.device):
        return LOSSES[name](rows)
