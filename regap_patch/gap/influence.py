"""What each image-text pair adds to a layer's term: the closed form behind the error bar.

With S2 = L L', M = L' S1 L = U e U', the linear map that carries the first cloud's shape to the second's is
T = W W', W = L U e^(-1/4). A row x of the first cloud moves the distance by
    2 (m1 - m2)'(x - m1) + |x - m1|^2 - |W'(x - m1)|^2,
a row y of the second by the same with the inverse map, L^+' U e^(1/4). Both are centred. The text's scale
s = 1 / mean |t| moves with the text: -2 F (|t| - mean |t|) / mean |t|.
The outlying rows and what stands in for them are taken as fixed.
Axes: N rows, D width, m pairs, r rank of the factor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regap_patch.gap.clouds import Cloud
from regap_patch.gap.frechet import FrechetParts
from regap_patch.gap.moments import Moments
from regap_patch.gap.outliers import Replacement
from regap_patch.gap.precision import exact_products

BLOCK_ROWS = 2048


def influence_of_pairs(
    parts: FrechetParts,
    moments: tuple[Moments, Moments],
    clouds: tuple[Cloud, Cloud],
    replacements: tuple[Replacement, Replacement],
    text_norms: Tensor,
) -> Tensor:
    """Influence of each pair on s^2 F: (m,) float64, mean 0, so that its variance over m is that of s^2 F.

    Args:
        parts: F, unscaled, of image rows (first) and text rows (second).
        moments: of the two clouds, outliers replaced.
        clouds: image rows and text rows, sample by sample.
        replacements: what stands in for outlying rows.
        text_norms: |t_j|, (M,) float64.
    """
    scale = 1.0 / text_norms.mean()
    maps = _maps(parts, moments)
    difference = moments[0].mean - moments[1].mean
    image = _rows(clouds[0], replacements[0], moments[0].mean, difference, maps[0], parts.products)
    text = _rows(clouds[1], replacements[1], moments[1].mean, -difference, maps[1], parts.products)
    text = text - 2.0 * parts.distance * (text_norms * scale - 1.0)
    pairs = _per_pair(image, clouds[0]) + _per_pair(text, clouds[1])
    return scale.square() * pairs


def _per_pair(rows: Tensor, cloud: Cloud) -> Tensor:
    """Add up centred row influences of each sample, as shares of the mean over rows: (N,) -> (m,)."""
    parts = torch.split_with_sizes(rows - rows.mean(), cloud.lengths)
    sums = torch.stack([part.sum() for part in parts])
    return sums * (len(cloud.samples) / len(rows))


def _maps(parts: FrechetParts, moments: tuple[Moments, Moments]) -> tuple[Tensor, Tensor]:
    """W of each side, (D, r) float64: |W'(x - m)|^2 is what a row adds to twice the cross term."""
    coupling = parts.coupling
    factor = coupling.factor
    product = coupling.product
    if product is None:
        assert coupling.cross_rows is not None
        product = coupling.cross_rows.t() @ coupling.cross_rows
    values, vectors = torch.linalg.eigh(product)
    kept = values > len(values) * torch.finfo(torch.float64).eps * values[-1]
    roots, vectors = values[kept].pow(0.25), vectors[:, kept]
    other = factor @ (vectors / roots)
    if coupling.route == "cholesky":
        own = torch.linalg.solve_triangular(factor.t(), vectors * roots, upper=True)
    elif coupling.route == "spectral":
        own = (factor / factor.square().sum(0)) @ (vectors * roots)
    else:
        own = torch.linalg.pinv(factor).t() @ (vectors * roots)
    return (own, other) if coupling.first == 0 else (other, own)


def _rows(
    cloud: Cloud,
    replacement: Replacement,
    mean: Tensor,
    difference: Tensor,
    transport: Tensor,
    products: torch.dtype,
) -> Tensor:
    """Influence of each row, up to a constant: (N,) float64."""
    weights, shift, direction = (value.to(products) for value in (transport, mean, difference))

    def influence(rows: Tensor) -> Tensor:
        centred = rows.to(products) - shift
        with exact_products(rows.device):
            moved = (centred @ weights).square().sum(1, dtype=torch.float64)
            along = (centred @ direction).double()
        return 2.0 * along + centred.square().sum(1, dtype=torch.float64) - moved

    found = torch.cat([influence(block) for block in cloud.blocks(BLOCK_ROWS)])
    if replacement.count:
        found = torch.where(replacement.mask, influence(replacement.row[None]), found)
    return found
