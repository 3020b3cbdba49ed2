"""One layer's term of MIR: the Frechet distance of image rows and text rows, in units of the text's norm.

Published procedure (arXiv 2410.07167): both clouds times s = 1 / mean |t_j|; outlying rows replaced by the
median row; Frechet distance with unbiased covariances. The scale multiplies both clouds and the other steps
follow it, so it is applied once, at the end, as s^2.
Axes: m pairs (samples), G groups of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from regap_patch.errors import RowsError
from regap_patch.gap.clouds import Cloud, Rows
from regap_patch.gap.frechet import FrechetParts, check_spread, parts_of_clouds, parts_of_moments
from regap_patch.gap.influence import influence_of_pairs
from regap_patch.gap.jackknife import frechet_without_groups
from regap_patch.gap.moments import Moments
from regap_patch.gap.outliers import find_replacement

ILL_CONDITIONED = "ill_conditioned"
FEWER_ROWS_THAN_WIDTH = "fewer_rows_than_width"
FEWER_PAIRS_THAN_WIDTH = "fewer_pairs_than_width"


@dataclass(frozen=True)
class LayerTerm:
    """One layer, in numbers.

    `frechet`, `mean_part`, `trace_part`, the traces and `cross` are in units of the mean text norm squared
    (times `scale`^2), as MIR sums them; norms and `centroid_l2` are in the unit of the hidden states.

    Attributes:
        frechet: mean_part + trace_part, what MIR adds up.
        mean_part: s^2 |mean v - mean t|^2, outliers replaced.
        trace_part: s^2 (tr S_v + tr S_t - 2 tr (S_v S_t)^(1/2)).
        image_trace: s^2 tr S_v, unbiased.
        text_trace: s^2 tr S_t, unbiased.
        cross: s^2 tr (S_v S_t)^(1/2).
        image_norm: mean |v_i| of all rows, outliers included.
        text_norm: mean |t_j| of all rows, outliers included.
        centroid_l2: |mean v - mean t|, outliers replaced.
        cosine: of the two means; 0 where one of them is 0.
        scale: s = 1 / text_norm.
        width: D.
        image_rows: how many, replaced ones included.
        text_rows: how many, replaced ones included.
        image_outliers: rows replaced by the median row.
        text_outliers: rows replaced by the median row.
        route: how the cross term was taken, see `coupling`.
        products: dtype of the products behind the covariances.
        flags: what a reader should know: "ill_conditioned" (digits beyond float32 sums were needed and could
            not be had), "fewer_rows_than_width" (a singular covariance), "fewer_pairs_than_width" (the error
            bar is only a rough guide).
        influence: (m,) float64, what each pair adds to `frechet`, mean 0; None where it was not asked for.
        without_group: `frechet` without each of G groups of pairs; empty where it was not asked for.
    """

    frechet: float
    mean_part: float
    trace_part: float
    image_trace: float
    text_trace: float
    cross: float
    image_norm: float
    text_norm: float
    centroid_l2: float
    cosine: float
    scale: float
    width: int
    image_rows: int
    text_rows: int
    image_outliers: int = 0
    text_outliers: int = 0
    route: str = "cholesky"
    products: str = "float32"
    flags: tuple[str, ...] = ()
    influence: Tensor | None = field(default=None, repr=False, compare=False)
    without_group: tuple[float, ...] = ()

    @property
    def norm_ratio(self) -> float:
        """Mean image norm over mean text norm."""
        return self.image_norm / self.text_norm

    @property
    def pairwise_sq(self) -> float:
        """Mean |v_i - t_j|^2 over all pairs of rows, in the unit of the hidden states, outliers replaced."""
        image = self.image_trace * (1 - 1 / self.image_rows)
        text = self.text_trace * (1 - 1 / self.text_rows)
        return self.centroid_l2**2 + (image + text) / self.scale**2


@torch.no_grad()
def layer_term(image: Rows, text: Rows, *, errors: bool = False, groups: int = 0) -> LayerTerm:
    """One layer's term from its rows.

    Args:
        image: (N, D) floating, or one (n_i, D) for each sample; half precision is read as float32.
        text: (M, D), or one (m_i, D) for each sample, in the same order.
        errors: also take the influence of each pair. Needs samples. About twice the cost.
        groups: also take the term without each of this many groups of pairs (the jackknife). Needs samples.
            Cost: the covariances once more, and the O(D^3) part once a group.

    Returns:
        The term. Cost: (N + M) D^2 + O(D^3); extra memory: a few (D, D) float64 and one block of rows.

    Raises:
        RowsError: fewer than two rows or groups, a sample without rows, different widths or numbers of
            samples, NaN or infinity (with the sample), rows that are all the same, text of norm zero.
    """
    clouds = (Cloud.of(image, "image rows"), Cloud.of(text, "text rows"))
    if errors or groups:
        _check_pairs(*clouds, groups)
    norms = (clouds[0].row_norms(), clouds[1].row_norms())
    replacements = (find_replacement(clouds[0], norms[0]), find_replacement(clouds[1], norms[1]))
    parts, moments = parts_of_clouds(*clouds, replacements)
    influence = influence_of_pairs(parts, moments, clouds, replacements, norms[1]) if errors else None
    without = (
        frechet_without_groups(clouds, replacements, moments, norms[1], groups, parts.products)
        if groups
        else ()
    )
    return _assemble(
        parts,
        moments,
        (norms[0].mean(), norms[1].mean()),
        (replacements[0].count, replacements[1].count),
        pairs=len(clouds[0].samples) if clouds[0].paired else None,
        influence=influence,
        without_group=without,
    )


def term_from_moments(
    image: Moments,
    text: Moments,
    *,
    image_norm: float,
    text_norm: float,
    outliers: tuple[int, int] = (0, 0),
    pairs: int | None = None,
) -> LayerTerm:
    """One layer's term from running sums, by the same formula.

    Args:
        image: `MomentSums.moments()` of the image rows, outliers replaced by `MomentSums.add_copies`.
        text: the same of the text rows.
        image_norm: mean |v_i| of all rows, outliers included.
        text_norm: mean |t_j| of all rows, outliers included; its inverse is the scale.
        outliers: image rows and text rows that were replaced.
        pairs: how many samples they came from, if known.

    Returns:
        The term, without influence. Sums cannot be taken again: where float32 products do not resolve the
        term, it is flagged "ill_conditioned". Let `MomentSums` take float64 products where there are fewer
        rows than columns.

    Raises:
        RowsError: fewer than two rows, different widths, no spread, or text of norm zero.
    """
    for moments, name in ((image, "image rows"), (text, "text rows")):
        if moments.count < 2:
            raise RowsError(f"A distance needs two {name} or more, but there is {moments.count}: give more.")
        check_spread(moments, name)
    norms = (torch.tensor(image_norm).double(), torch.tensor(text_norm).double())
    return _assemble(parts_of_moments(image, text), (image, text), norms, outliers, pairs=pairs)


def _check_pairs(image: Cloud, text: Cloud, groups: int) -> None:
    counts = (len(image.samples), len(text.samples))
    if not image.paired or not text.paired or counts[0] != counts[1] or counts[0] < 2:
        raise RowsError(
            "An error bar over pairs needs the rows of each sample, two samples or more, as many for image "
            f"as for text, but there are {counts[0]} and {counts[1]}: give a sequence of (n_i, D) tensors."
        )
    if groups == 1 or groups > counts[0]:
        raise RowsError(f"The jackknife needs 2 to {counts[0]} groups of {counts[0]} pairs, not {groups}.")


def _assemble(
    parts: FrechetParts,
    moments: tuple[Moments, Moments],
    norms: tuple[Tensor, Tensor],
    outliers: tuple[int, int],
    *,
    pairs: int | None,
    influence: Tensor | None = None,
    without_group: tuple[float, ...] = (),
) -> LayerTerm:
    if norms[1] <= 0:
        raise RowsError("The text rows set the scale, but all of them are zero: check the text's positions.")
    width = len(moments[0].mean)
    square = 1.0 / float(norms[1]) ** 2
    checks = {
        ILL_CONDITIONED: not parts.resolved,
        FEWER_ROWS_THAN_WIDTH: min(moments[0].count, moments[1].count) <= width,
        FEWER_PAIRS_THAN_WIDTH: pairs is not None and pairs < width,
    }
    cosine = torch.nn.functional.cosine_similarity(moments[0].mean, moments[1].mean, dim=0)
    return LayerTerm(
        frechet=float(parts.distance) * square,
        mean_part=float(parts.mean) * square,
        trace_part=float(parts.spread) * square,
        image_trace=float(parts.first_trace) * square,
        text_trace=float(parts.second_trace) * square,
        cross=float(parts.cross) * square,
        image_norm=float(norms[0]),
        text_norm=float(norms[1]),
        centroid_l2=float(parts.mean.sqrt()),
        cosine=float(cosine),
        scale=1.0 / float(norms[1]),
        width=width,
        image_rows=moments[0].count,
        text_rows=moments[1].count,
        image_outliers=outliers[0],
        text_outliers=outliers[1],
        route=parts.coupling.route,
        products=str(parts.products).removeprefix("torch."),
        flags=tuple(flag for flag, holds in checks.items() if holds),
        influence=influence,
        without_group=without_group,
    )
