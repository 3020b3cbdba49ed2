"""MIR in one pass over whole forward passes, for models whose layers cannot be called alone.

Each layer keeps running sums of its image rows and of its text rows. Which rows are outliers is known only at
the end, and a row of a thousand times the norm cannot be taken out of a sum again without losing its digits.
So rows that look far out while they pass (beyond 2.5 robust deviations of the norms so far) are held back and
sorted at the end. The certificate: every outlier was among them. Where it was not, that layer runs again with
its rows stored. The median row that replaces outliers comes from a seeded sample of rows, all of them where
they are few.

Axes: N rows, n rows of one pair, D width, K layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from regap_patch.errors import MeasureError
from regap_patch.gap.clouds import Cloud
from regap_patch.gap.layer import LayerTerm, layer_term, term_from_moments
from regap_patch.gap.moments import MomentSums
from regap_patch.gap.outliers import lower_median, outlier_mask
from regap_patch.hosts.decoder import Decoder
from regap_patch.measure.capture import Sample
from regap_patch.measure.decoder import walk_layers
from regap_patch.measure.layer_major import Ledger

RESERVOIR = 1024
HELD_BEYOND = 2.5
TO_DEVIATIONS = 1.4826  # of the median distance from the median, for normal norms


@dataclass
class StreamedCloud:
    """Running sums of one modality at one layer.

    Attributes:
        sums: of the rows that are surely no outliers.
        norms: of all rows, in order.
        held: rows that may be outliers, with their numbers.
        sample: rows for the median, those with the smallest random keys.
    """

    sums: MomentSums
    draw: torch.Generator
    norms: list[Tensor] = field(default_factory=list)
    held: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    keys: Tensor | None = None
    sample: Tensor | None = None
    count: int = 0

    @classmethod
    def empty(cls, rows: int, width: int, device: torch.device, seed: int) -> StreamedCloud:
        """For a known number of rows in all: few for their width need float64 products."""
        products = torch.float64 if rows <= 4 * width else torch.float32
        return cls(MomentSums(width, products=products, device=device), torch.Generator().manual_seed(seed))

    def add(self, rows: Tensor) -> None:
        """Take in the rows of one pair: (n, D)."""
        norms = torch.linalg.vector_norm(rows.double(), dim=1)
        self.norms.append(norms)
        seen = torch.cat(self.norms)
        middle = seen.median()
        deviation = TO_DEVIATIONS * (seen - middle).abs().median()
        far = (norms - middle).abs() > HELD_BEYOND * deviation
        self.sums.add(rows, ~far)
        number = torch.arange(self.count, self.count + len(rows), device=rows.device)
        self.held.append((number[far], rows[far].clone()))
        self.count += len(rows)
        self._sample(rows)

    def _sample(self, rows: Tensor) -> None:
        keys = torch.rand(len(rows), generator=self.draw, dtype=torch.float64).to(rows.device)
        if self.keys is None or self.sample is None:
            self.keys, self.sample = keys, rows.clone()
        else:
            self.keys, self.sample = torch.cat([self.keys, keys]), torch.cat([self.sample, rows])
        if len(self.keys) > RESERVOIR:
            kept = self.keys.topk(RESERVOIR, largest=False).indices
            self.keys, self.sample = self.keys[kept], self.sample[kept]

    def close(self) -> tuple[int, int]:
        """Sort what was held back into the sums; outliers, and how many of them were not held back."""
        outlier = outlier_mask(torch.cat(self.norms))
        numbers = torch.cat([number for number, _ in self.held])
        rows = torch.cat([rows for _, rows in self.held])
        known = torch.zeros_like(outlier)
        known[numbers] = True
        missed = int((outlier & ~known).sum())
        self.sums.add(rows, ~outlier[numbers])
        count = int(outlier.sum())
        if count:
            assert self.sample is not None
            self.sums.add_copies(lower_median(Cloud((self.sample,))), count)
        return count, missed

    @property
    def mean_norm(self) -> float:
        """Mean row norm, outliers included."""
        return float(torch.cat(self.norms).mean())

    @property
    def bytes_held(self) -> int:
        """What all of it takes."""
        parts = [self.sums.squares, self.sums.total, *self.norms, *(rows for _, rows in self.held)]
        return sum(part.nbytes for part in parts) + (0 if self.sample is None else self.sample.nbytes)


@dataclass(frozen=True)
class Streamed:
    """What a stream gave.

    Attributes:
        terms: of layers 0 to K.
        samples: (image rows, text rows) of some layers, for a picture.
        certificate: for the report.
    """

    terms: list[LayerTerm]
    samples: dict[int, tuple[Tensor, Tensor]]
    certificate: dict[str, Any]


Arguments = Callable[[int], Mapping[str, Any]]


def stream_terms(
    decoder: Decoder,
    model: nn.Module,
    samples: Sequence[Sample],
    arguments: Arguments,
    ledger: Ledger,
    *,
    keep: Sequence[int] = (),
    seed: int = 0,
    progress: Callable[[int], None] = lambda pair: None,
) -> Streamed:
    """The terms of all layers from one pass over the pairs.

    Args:
        decoder: of this model.
        model: without wrappers, in evaluation mode.
        samples: which rows of each pair are what.
        arguments: of the forward pass of pair i.
        ledger: told of every byte held.
        keep: layers of which rows for a picture are wanted.
        seed: of the rows that the median is taken of.
        progress: told when a pair is through.

    Raises:
        MeasureError: a state that is not finite, with its layer and pair.
    """
    totals = [sum(len(sample.image) for sample in samples), sum(len(sample.text) for sample in samples)]
    clouds: dict[int, tuple[StreamedCloud, StreamedCloud]] = {}

    def see(layer: int, state: Tensor, sample: Sample) -> None:
        for kind, rows in zip(("image", "text"), sample.rows(state), strict=True):
            if not rows.isfinite().all():
                raise MeasureError(
                    f"The {kind} rows of layer {layer} must be finite, but those of {sample.name} hold NaN "
                    f"or infinity: load the model in float32 or bfloat16."
                )
            if layer not in clouds:
                clouds[layer] = tuple(  # type: ignore[assignment]
                    StreamedCloud.empty(total, rows.shape[1], rows.device, seed) for total in totals
                )
            clouds[layer][kind == "text"].add(rows)

    for number, sample in enumerate(samples):
        walk_layers(decoder, model, arguments(number), lambda k, state, one=sample: see(k, state, one))  # type: ignore[misc]
        ledger.take(sum(cloud.bytes_held for pair in clouds.values() for cloud in pair) - ledger.now)
        progress(number)
    return _close(clouds, decoder, model, samples, arguments, keep)


def _close(
    clouds: dict[int, tuple[StreamedCloud, StreamedCloud]],
    decoder: Decoder,
    model: nn.Module,
    samples: Sequence[Sample],
    arguments: Arguments,
    keep: Sequence[int],
) -> Streamed:
    terms, again, missed_in_all = [], [], 0
    exact = all(cloud.count <= RESERVOIR for pair in clouds.values() for cloud in pair)
    held = sum(len(numbers) for pair in clouds.values() for cloud in pair for numbers, _ in cloud.held)
    for layer in sorted(clouds):
        image, text = clouds[layer]
        (image_outliers, missed), (text_outliers, missed_text) = image.close(), text.close()
        missed_in_all += missed + missed_text
        if missed + missed_text:
            again.append(layer)
            terms.append(_stored(layer, decoder, model, samples, arguments))
            continue
        terms.append(
            term_from_moments(
                image.sums.moments(),
                text.sums.moments(),
                image_norm=image.mean_norm,
                text_norm=text.mean_norm,
                outliers=(image_outliers, text_outliers),
                pairs=len(samples),
            )
        )
    certificate = {
        "rows_held_back": held,
        "outliers_missed": missed_in_all,
        "layers_run_again": again,
        "median": "of all rows" if exact else f"of {RESERVOIR} rows drawn by the seed",
    }
    shown = {k: (clouds[k][0].sample, clouds[k][1].sample) for k in keep if k in clouds}
    return Streamed(terms, shown, certificate)  # type: ignore[arg-type]


def _stored(
    layer: int, decoder: Decoder, model: nn.Module, samples: Sequence[Sample], arguments: Arguments
) -> LayerTerm:
    """One layer's term with all of its rows stored."""
    image: list[Tensor] = []
    text: list[Tensor] = []
    for number, sample in enumerate(samples):

        def see(seen: int, state: Tensor, sample: Sample = sample) -> None:
            if seen == layer:
                rows = sample.rows(state)
                image.append(rows[0].clone())
                text.append(rows[1].clone())

        walk_layers(decoder, model, arguments(number), see)
    return layer_term(image, text)
