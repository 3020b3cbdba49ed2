"""Modality Integration Rate: log10 of the sum of the layers' terms, with an error bar over image-text pairs.

Published as arXiv 2410.07167; here with the exact matrix root. Layer 0, the language model's input, is not in
the published sum; it is reported beside it.

The unit of sampling is the pair: rows of one image depend on each other, and all layers see the same pairs.
So the influences of a pair are added over the layers before their spread is taken.
Axes: K layers, m pairs, G groups of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

from torch import Tensor

from regap_patch.errors import RowsError
from regap_patch.gap.clouds import Cloud, Rows
from regap_patch.gap.layer import LayerTerm, layer_term

Layer = tuple[Rows, Rows]


@dataclass(frozen=True)
class MirResult:
    """MIR and what it is made of.

    Attributes:
        value: log10 of the sum over layers; NaN where the sum is not positive, and `reason` says so.
        per_layer: the terms of layers 1..K, in order.
        stderr: standard error of `value` over pairs; None where the layers came without influences.
        corrected: `value` less its bias, by the jackknife over groups of pairs; None without groups.
        layer_zero: the term of the language model's input, not in the sum; None where it was not given.
        pairs: m, or None where rows came without samples.
        influence: (m,) float64, what each pair adds to `value`, mean 0; stderr^2 = sum / (m (m - 1)).
        reason: why `value` is NaN; empty otherwise.
    """

    value: float
    per_layer: tuple[LayerTerm, ...]
    stderr: float | None = None
    corrected: float | None = None
    layer_zero: LayerTerm | None = None
    pairs: int | None = None
    influence: Tensor | None = field(default=None, repr=False, compare=False)
    reason: str = ""

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of any layer in the sum, each once."""
        return tuple(dict.fromkeys(flag for term in self.per_layer for flag in term.flags))

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Normal interval around `corrected`, or around `value` where no groups were taken."""
        if self.stderr is None:
            return None
        return normal_interval(self.value if self.corrected is None else self.corrected, self.stderr, level)


def normal_interval(value: float, stderr: float, level: float = 0.95) -> tuple[float, float]:
    """The two-sided normal interval of this level."""
    half = NormalDist().inv_cdf(0.5 + level / 2) * stderr
    return value - half, value + half


def mir(
    layers: Iterable[Layer],
    *,
    layer_zero: Layer | None = None,
    errors: bool | None = None,
    groups: int = 0,
) -> MirResult:
    """MIR from the rows of each layer.

    Args:
        layers: (image rows, text rows) of layers 1..K, taken one at a time (a generator holds one layer).
            Rows are (N, D), or one (n_i, D) for each sample: then pairs are known.
        layer_zero: the same of the language model's input, reported beside the sum.
        errors: take the error bar over pairs. None: where samples are given.
        groups: groups of pairs for the jackknife's bias correction; 0 for none.

    Returns:
        See `MirResult`. Cost: see `layer_term`, for each layer.

    Raises:
        RowsError: as `layer_term`, with the layer; no layers; layers of different pairs.
    """
    zero = None if layer_zero is None else _term(0, layer_zero, errors, groups)
    return combine(
        (_term(number, layer, errors, groups) for number, layer in enumerate(layers, start=1)),
        layer_zero=zero,
    )


def _term(number: int, layer: Layer, errors: bool | None, groups: int) -> LayerTerm:
    image = Cloud.of(layer[0], f"image rows of layer {number}")
    text = Cloud.of(layer[1], f"text rows of layer {number}")
    wanted = image.paired and text.paired and len(image.samples) > 1 if errors is None else errors
    return layer_term(image, text, errors=wanted, groups=groups)


def combine(terms: Iterable[LayerTerm], *, layer_zero: LayerTerm | None = None) -> MirResult:
    """MIR from the terms of layers 1..K, however they were taken.

    Raises:
        RowsError: no terms, or terms of different numbers of pairs.
    """
    terms = tuple(terms)
    if not terms:
        raise RowsError("MIR was asked of no layers: give the rows of one layer or more.")
    influences = [term.influence for term in terms if term.influence is not None]
    sizes = {len(influence) for influence in influences}
    if len(sizes) > 1:
        raise RowsError(f"All layers must see the same pairs, but their numbers are {sorted(sizes)}.")
    total = math.fsum(term.frechet for term in terms)
    if not total > 0:
        negative = [number for number, term in enumerate(terms, start=1) if not term.frechet > 0]
        reason = (
            f"The sum over layers is {total:.6g}, which has no logarithm; not positive: layers {negative}."
        )
        return MirResult(math.nan, terms, layer_zero=layer_zero, reason=reason)
    value = math.log10(total)
    if len(influences) < len(terms):
        return MirResult(value, terms, layer_zero=layer_zero, corrected=_corrected(terms, value))
    influence = sum(influences[1:], start=influences[0]) / (math.log(10) * total)
    return MirResult(
        value,
        terms,
        stderr=standard_error(influence),
        corrected=_corrected(terms, value),
        layer_zero=layer_zero,
        pairs=len(influence),
        influence=influence,
    )


def standard_error(influence: Tensor) -> float:
    """Of a statistic, from what each of m pairs adds to it: (m,) float64."""
    return float(influence.std()) / math.sqrt(len(influence))


def _corrected(terms: Sequence[LayerTerm], value: float) -> float | None:
    groups = {len(term.without_group) for term in terms}
    if len(groups) != 1 or groups == {0}:
        return None
    sums = [math.fsum(parts) for parts in zip(*(term.without_group for term in terms), strict=True)]
    if min(sums) <= 0:
        return None
    count = len(sums)
    return count * value - (count - 1) * math.fsum(math.log10(each) for each in sums) / count


@dataclass(frozen=True)
class MirDifference:
    """MIR of a second result minus MIR of a first one, on the same pairs.

    Attributes:
        value: second minus first, corrected for bias where both are.
        stderr: standard error over pairs; what the two have in common cancels.
        pairs: m.
    """

    value: float
    stderr: float
    pairs: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Normal interval."""
        return normal_interval(self.value, self.stderr, level)


def mir_difference(first: MirResult, second: MirResult) -> MirDifference:
    """Paired difference of two models, or two states of one, measured on the same pairs in the same order.

    Raises:
        RowsError: where a result has no influences, or their numbers of pairs differ.
    """
    if first.influence is None or second.influence is None:
        raise RowsError("A paired difference needs the influence of each pair: take both with samples.")
    if len(first.influence) != len(second.influence):
        raise RowsError(
            f"A paired difference needs the same pairs, but there are {len(first.influence)} and "
            f"{len(second.influence)}: measure both on one set."
        )
    corrected = first.corrected is not None and second.corrected is not None
    values = [r.corrected if corrected and r.corrected is not None else r.value for r in (first, second)]
    influence = second.influence.cpu() - first.influence.cpu()
    return MirDifference(values[1] - values[0], standard_error(influence), len(influence))
