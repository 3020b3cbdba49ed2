"""The two numbers that the script published with MIR prints, named as what they are.

Both take float32 covariances and their float32 product A = S_v S_t. "mir-accurate" takes the trace of the
principal root of A: right where A is well conditioned, off where it is not (fewer tokens than dimensions, one
dominant coordinate, a steep spectrum), since float32 round-off of A turns into its square root there.
"mir-fast-defect" takes five steps of Y <- (Y + Z^-1 A) / 2, Z <- (Z + Y^-1 A) / 2 from Y = A, Z = I. That is
a fixed point: Y stays A. The script's default therefore takes tr A where tr A^(1/2) belongs, and where A is
badly conditioned it takes what float32 inverses leave of it, which differs from machine to machine. The sum
over layers can be negative, and then has no logarithm.
Use them to compare with published numbers, never to measure.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from regap_patch.errors import ConfigError, RowsError
from regap_patch.gap.clouds import Cloud, Rows
from regap_patch.gap.frechet import CONSTANT
from regap_patch.gap.layer import FEWER_ROWS_THAN_WIDTH, ILL_CONDITIONED, LayerTerm
from regap_patch.gap.outliers import outlier_mask
from regap_patch.gap.precision import exact_products

Compat = Literal["mir-accurate", "mir-fast-defect"]
COMPAT_IN_WORDS: dict[str, str] = {
    "mir-accurate": "the script's `--mode accurate`: float32, principal root of a float32 product",
    "mir-fast-defect": "the script's default mode, whose iteration returns the product instead of its root",
}
STEPS = 5
# Beyond these the script's float32 no longer determines its number to 1e-5.
CONDITION = 1e3
ROWS_PER_COLUMN = 4


@torch.no_grad()
def reference_term(image: Rows, text: Rows, mode: str) -> LayerTerm:
    """One layer's term as the published script takes it.

    Args:
        image: (N, D) floating, or (n_i, D) for each sample.
        text: (M, D), or (m_i, D) for each sample.
        mode: a key of `COMPAT_IN_WORDS`.

    Returns:
        The term; flagged "ill_conditioned" where either cloud has fewer than 4 D rows, or the conditions of
        the two covariances, and so at worst that of their product, multiply to more than 1000. `cross` is
        what the mode puts in place of tr (S_v S_t)^(1/2). No influence.
        Memory: float32 copies of both clouds, as in the script.

    Raises:
        ConfigError: for an unknown mode.
        RowsError: as `layer_term`.
    """
    if mode not in COMPAT_IN_WORDS:
        raise ConfigError(f"The mode {mode!r} is not known: choose one of {', '.join(COMPAT_IN_WORDS)}.")
    clouds = (Cloud.of(image, "image rows"), Cloud.of(text, "text rows"))
    norms = [cloud.row_norms().mean() for cloud in clouds]
    rows = [torch.cat(cloud.samples).float() for cloud in clouds]
    scale = 1.0 / torch.linalg.vector_norm(rows[1], dim=1).mean()
    with exact_products(scale.device):
        sides = [_scaled_moments(side * scale, cloud.name) for side, cloud in zip(rows, clouds, strict=True)]
        (image_mean, image_cov, image_out), (text_mean, text_cov, text_out) = sides
        product = image_cov @ text_cov
        cross = _root_trace(product) if mode == "mir-accurate" else _iterate(product).trace()
    mean_part = (image_mean - text_mean).square().sum()
    traces = image_cov.trace(), text_cov.trace()
    total = mean_part + traces[0] + traces[1] - 2 * cross
    cosine = torch.nn.functional.cosine_similarity(image_mean, text_mean, dim=0)
    counts = [len(side) for side in rows]
    few, width = min(counts), len(image_mean)
    checks = {
        ILL_CONDITIONED: few < ROWS_PER_COLUMN * width
        or _condition(image_cov) * _condition(text_cov) > CONDITION,
        FEWER_ROWS_THAN_WIDTH: few <= width,
    }
    return LayerTerm(
        frechet=float(total),
        mean_part=float(mean_part),
        trace_part=float(total - mean_part),
        image_trace=float(traces[0]),
        text_trace=float(traces[1]),
        cross=float(cross),
        image_norm=float(norms[0]),
        text_norm=float(norms[1]),
        centroid_l2=float(mean_part.sqrt() / scale),
        cosine=float(cosine),
        scale=float(scale),
        width=width,
        image_rows=counts[0],
        text_rows=counts[1],
        image_outliers=image_out,
        text_outliers=text_out,
        route=mode,
        products="float32",
        flags=tuple(flag for flag, holds in checks.items() if holds),
    )


def _scaled_moments(rows: Tensor, name: str) -> tuple[Tensor, Tensor, int]:
    """Mean, covariance, both float32, and number of outlying rows, of scaled rows (N, D)."""
    mask = outlier_mask(torch.linalg.vector_norm(rows, dim=1))
    rows[mask] = rows.median(dim=0).values
    mean = rows.mean(0)
    centred = rows - mean
    covariance = centred.t() @ centred / (len(rows) - 1)
    if covariance.trace() <= CONSTANT * mean.square().sum():
        raise RowsError(
            f"The {name} are all the same: a distance between distributions needs rows that differ."
        )
    return mean, covariance, int(mask.sum())


def _root_trace(product: Tensor) -> Tensor:
    """Real part of the trace of the principal root: the principal roots of the eigenvalues, added up."""
    values: Tensor = torch.linalg.eigvals(product.double())
    return values.sqrt().real.sum().float()


def _iterate(product: Tensor) -> Tensor:
    """What the script calls the square root."""
    first, second = product, torch.eye(len(product), device=product.device)
    for _ in range(STEPS):
        first = (first + torch.linalg.inv_ex(second).inverse @ product) / 2
        second = (second + torch.linalg.inv_ex(first).inverse @ product) / 2
    return first


def _condition(covariance: Tensor) -> float:
    values = torch.linalg.eigvalsh(covariance.double())
    return float(values[-1] / values[0]) if values[0] > 0 else float("inf")
