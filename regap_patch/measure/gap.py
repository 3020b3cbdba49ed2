"""The gap at the language model's input, where ReGap acts, over image-caption pairs.

Axes: m samples, P image rows, T text rows, D width of the language model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regap_patch.errors import MeasureError
from regap_patch.gap.precision import float64
from regap_patch.gap.rows import ModalityRows
from regap_patch.gap.statistics import gap_statistics
from regap_patch.hosts.decoder import Decoder, find_decoder
from regap_patch.hosts.host import Host, end_ids
from regap_patch.hosts.table import find_host, unwrapped
from regap_patch.measure.capture import look
from regap_patch.measure.decoder import evaluating
from regap_patch.measure.mir import Progress


@dataclass(frozen=True)
class GapReport:
    """What `measure_gap` found.

    Attributes:
        corpus: statistics of all image rows against all text rows, as one cloud each.
        mean: of each statistic over the samples.
        stderr: of that mean.
        samples: the statistics of each sample, with its numbers of rows.
        host: the model family.
    """

    corpus: dict[str, float]
    mean: dict[str, float]
    stderr: dict[str, float]
    samples: list[dict[str, Any]]
    host: str


class _Pool:
    """Sums over the rows of one modality."""

    def __init__(self) -> None:
        self.count = 0
        self.norms = 0.0
        self.squares = 0.0
        self.total: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        rows = float64(rows)
        self.count += len(rows)
        self.norms += float(rows.norm(dim=1).sum())
        self.squares += float(rows.square().sum())
        self.total = rows.sum(0) if self.total is None else self.total + rows.sum(0)

    @property
    def mean(self) -> Tensor:
        assert self.total is not None
        return self.total / self.count

    @property
    def trace(self) -> float:
        """Population trace of the covariance."""
        return max(self.squares / self.count - float(self.mean.square().sum()), 0.0)


def measure_gap(
    model: nn.Module,
    pairs: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str] | None = None,
    host: Host | None = None,
    progress: Progress = lambda what, done, of: None,
) -> GapReport:
    """Gap statistics at the language model's input; tower and projector run, the decoder does not.

    Text rows are the ids behind the last image, without BOS and EOS: for `<image>` and a caption those that
    stage 1 supervises, without the final newline of LLaVA's `plain` template.

    Args:
        model: of any known host; its mode is as before afterwards.
        pairs: forward arguments of each pair, one sample and not padded.
        names: of the pairs, for messages and for the report.
        host: the model family, where it is none of the table's.
        progress: told what is being done and how far it is.

    Returns:
        See `GapReport`. `corpus` holds `centroid_l2`, `pairwise_sq`, `cosine`, `image_norm`, `text_norm`,
        `norm_ratio`, `image_trace`, `text_trace` (population traces) and the numbers of rows; the samples
        hold the same and `pairwise_l2`.

    Raises:
        UnknownHostError: no known host fits the model.
        MeasureError: fewer than 2 pairs, a pair without image or text, or rows that are not finite.
    """
    if len(pairs) < 2:
        raise MeasureError(
            f"A gap with an error bar needs at least 2 pairs, but {len(pairs)} were given: give more."
        )
    host, projector = find_host(model, host)
    base: Any = unwrapped(model)
    decoder = find_decoder(host, base)
    names = names or [f"pair {number}" for number in range(len(pairs))]
    image, text = _Pool(), _Pool()
    samples = []
    with evaluating(base):
        for number, name in enumerate(names):
            progress("inputs", number, len(pairs))
            rows = _rows(base, host, projector, decoder, pairs[number], name)
            samples.append(_statistics(rows, name, image, text))
    progress("inputs", len(pairs), len(pairs))
    mean, stderr = _over_samples(samples)
    return GapReport(_corpus(image, text), mean, stderr, samples, host.name)


def gap_of_pair(
    model: nn.Module, arguments: Mapping[str, Any], *, name: str = "the pair", host: Host | None = None
) -> dict[str, Any]:
    """What `measure_gap` finds of each sample, of one pair alone.

    Args:
        model: of any known host; its mode is as before afterwards.
        arguments: of its forward: one sample, not padded.
        name: of the pair, for messages.
        host: the model family, where it is none of the table's.

    Raises:
        UnknownHostError: no known host fits the model.
        MeasureError: no image, no text, or rows that are not finite.
    """
    host, projector = find_host(model, host)
    base: Any = unwrapped(model)
    with evaluating(base):
        rows = _rows(base, host, projector, find_decoder(host, base), arguments, name)
        return _statistics(rows, name, _Pool(), _Pool())


def _rows(
    base: Any, host: Host, projector: nn.Module, decoder: Decoder, arguments: Mapping[str, Any], name: str
) -> ModalityRows:
    seen = look(base, host, projector, decoder, arguments)
    if len(seen.projected) != 1:
        raise MeasureError(
            f"The projector of {type(base).__name__} ran {len(seen.projected)} times for {name}: a "
            f"gap needs its one output: give every pair an image."
        )
    return host.rows(base, arguments, seen.projected[0], _text_mask(base, host, arguments["input_ids"]))


def _text_mask(model: Any, host: Host, ids: Tensor) -> Tensor:
    """Ids behind the last image and no end of a text: (1, L) bool."""
    image_id = host.image_token(model)
    mask = torch.ones_like(ids, dtype=torch.bool)
    if image_id is not None:
        behind = (ids == image_id).flip(1).int().cumsum(1).flip(1) == 0
        mask = mask & behind
    for end in end_ids(model.config):
        mask = mask & (ids != end)
    return mask


def _statistics(rows: ModalityRows, name: str, image: _Pool, text: _Pool) -> dict[str, Any]:
    """The statistics of one sample; its rows are added to the pools."""
    for kind, values, mask, pool in (
        ("image", rows.image, rows.image_mask, image),
        ("text", rows.text, rows.text_mask, text),
    ):
        chosen = values[mask]
        if not len(chosen):
            raise MeasureError(f"{name} has no {kind} rows: give every pair an image and a text.")
        if not chosen.isfinite().all():
            raise MeasureError(
                f"The {kind} rows of {name} hold NaN or infinity at the language model's input (layer 0): "
                f"load the model in float32 or bfloat16."
            )
        pool.add(chosen)
    stats = gap_statistics(rows, pairwise=True).as_dict()
    found: dict[str, Any] = {key: float(value[0]) for key, value in stats.items()}
    found["norm_ratio"] = found["image_norm"] / found["text_norm"]
    counts = {"image_rows": int(rows.image_count()[0]), "text_rows": int(rows.text_count()[0])}
    return {"name": name, **counts, **found}


def _corpus(image: _Pool, text: _Pool) -> dict[str, float]:
    for pool, kind in ((image, "image"), (text, "text")):
        if pool.trace <= 1e-14 * float(pool.mean.square().sum()):
            raise MeasureError(
                f"All {pool.count} {kind} rows are the same (zero covariance): a gap between distributions "
                f"needs rows that differ."
            )
    gap = image.mean - text.mean
    norms = image.norms / image.count, text.norms / text.count
    return {
        "centroid_l2": float(gap.norm()),
        "pairwise_sq": float(gap.square().sum()) + image.trace + text.trace,
        "cosine": float(torch.nn.functional.cosine_similarity(image.mean, text.mean, dim=0)),
        "image_norm": norms[0],
        "text_norm": norms[1],
        "norm_ratio": norms[0] / norms[1],
        "image_trace": image.trace,
        "text_trace": text.trace,
        "image_rows": image.count,
        "text_rows": text.count,
    }


def _over_samples(samples: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
    mean, stderr = {}, {}
    for key in samples[0]:
        if key in ("name", "image_rows", "text_rows"):
            continue
        values = torch.tensor([float(sample[key]) for sample in samples], dtype=torch.float64)
        mean[key] = float(values.mean())
        stderr[key] = float(values.std()) / math.sqrt(len(values))
    return mean, stderr
