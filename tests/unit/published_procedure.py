"""The published procedure in float64 numpy, and the released script's two formulas in float32: references.

Written from the description (arXiv 2410.07167, and what its script prints), with nothing of ours in it.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import torch


def as_float64(rows: torch.Tensor | list[torch.Tensor]) -> np.ndarray:
    joined = torch.cat(rows) if isinstance(rows, list) else rows
    return joined.double().numpy()


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """scipy's sqrtm where both sides have more rows than columns and full rank, else the nuclear norm."""
    n, m, width = len(x), len(y), x.shape[1]
    x_mean, y_mean = x.mean(0), y.mean(0)
    x_factor, y_factor = (x - x_mean) / math.sqrt(n - 1), (y - y_mean) / math.sqrt(m - 1)
    ranks = [np.linalg.matrix_rank(factor) for factor in (x_factor, y_factor)]
    if min(n, m) > width and min(ranks) == width:
        root = scipy.linalg.sqrtm((x_factor.T @ x_factor) @ (y_factor.T @ y_factor))
        cross = np.trace(np.atleast_2d(root)).real
    else:
        cross = np.linalg.svd(x_factor @ y_factor.T, compute_uv=False).sum()
    return float(((x_mean - y_mean) ** 2).sum() + (x_factor**2).sum() + (y_factor**2).sum() - 2 * cross)


def lower_median(values: np.ndarray) -> np.ndarray:
    """Along the first axis; of an even number the lower of the two in the middle."""
    return np.sort(values, axis=0)[(len(values) - 1) // 2]


def without_outliers(rows: np.ndarray) -> np.ndarray:
    norms = np.sqrt((rows**2).sum(1))
    far = np.abs(norms - lower_median(norms)) > 3 * norms.std(ddof=1)
    return np.where(far[:, None], lower_median(rows), rows)


def prepared(
    image: torch.Tensor | list[torch.Tensor], text: torch.Tensor | list[torch.Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """Both clouds in units of the mean text norm, outliers replaced."""
    v, t = as_float64(image), as_float64(text)
    scale = 1 / np.sqrt((t**2).sum(1)).mean()
    return without_outliers(v * scale), without_outliers(t * scale)


def layer(image: torch.Tensor | list[torch.Tensor], text: torch.Tensor | list[torch.Tensor]) -> float:
    return frechet(*prepared(image, text))


def script(image: torch.Tensor, text: torch.Tensor, mode: str) -> float:
    """One layer as the released script prints it, in float32."""
    one = np.float32(1)
    v, t = image.numpy().astype(np.float32), text.numpy().astype(np.float32)
    scale = one / np.linalg.norm(t, axis=1).mean(dtype=np.float32)
    v, t = without_outliers(v * scale), without_outliers(t * scale)
    assert v.dtype == t.dtype == np.float32
    v_mean, t_mean = v.mean(0), t.mean(0)
    v_cov = (v - v_mean).T @ (v - v_mean) / np.float32(len(v) - 1)
    t_cov = (t - t_mean).T @ (t - t_mean) / np.float32(len(t) - 1)
    product = v_cov @ t_cov
    if mode == "mir-accurate":
        root = np.real(scipy.linalg.sqrtm(product))
    else:
        root, other = product, np.eye(len(product), dtype=np.float32)
        for _ in range(5):
            root = (root + np.linalg.inv(other) @ product) / 2
            other = (other + np.linalg.inv(root) @ product) / 2
    square = ((v_mean - t_mean) ** 2).sum()
    return float(square + np.trace(v_cov) + np.trace(t_cov) - 2 * np.trace(root))
