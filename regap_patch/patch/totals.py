"""Sums over the forward passes of one optimizer step, and the one collective of the whole patch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regap_patch.gap.precision import float64
from regap_patch.patch.record import GapRecord

_LOSSES = ("loss_lm", "loss_gap", "loss_weighted")
_HEAD = (*_LOSSES, "share", "grad_lm_sq", "grad_gap_sq", "samples")


@dataclass(frozen=True)
class StepMeans:
    """One optimizer step over all its forward passes and all ranks.

    Attributes:
        names: what `values` holds: the three losses, then the statistics.
        values: (N,) float64, on the device.
        present: (N,) float64, 1 where the value means something, 0 where no sample had rows of both kinds.
        alpha: the coefficient that was in force.
        gradients: (2,) float64, squared norms of the two gradients; 0 unless alpha is measured from them.
    """

    names: tuple[str, ...]
    values: Tensor
    present: Tensor
    alpha: float
    gradients: Tensor

    def __getitem__(self, name: str) -> Tensor:
        """One value, 0-d float64."""
        return self.values[self.names.index(name)]

    def floats(self) -> dict[str, float]:
        """What means something, as floats. Waits for the device."""
        rows = zip(self.names, self.values.tolist(), self.present.tolist(), strict=True)
        return {name: value for name, value, present in rows if present}


class StepTotals:
    """Adds up records until `close()` turns them into means.

    With `num_items` each loss is a share of the step's loss: loss * num_items are sums over targets, so their
    sum over passes and ranks, divided by all targets, is the mean however the step was split. Without it each
    pass counts once.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._names: tuple[str, ...] = ()
        self._alpha = 0.0

    @property
    def empty(self) -> bool:
        """Whether no forward pass was added since the last `close()`."""
        return self._sums is None

    def add(self, record: GapRecord, loss_lm: Tensor, num_items: Tensor | int | None) -> None:
        """Take in one forward pass. A pass whose loss is not finite (no target at all) does not count."""
        counts = float64(torch.isfinite(loss_lm))
        items = 1.0 if num_items is None else num_items
        losses = [
            float64(torch.where(torch.isfinite(loss_lm), value.to(loss_lm.device), 0.0)) * items
            for value in (loss_lm, record.loss_gap, record.loss_weighted)
        ]
        share = counts * (1.0 if num_items is None else float64(record.targets.sum()).to(counts.device))
        stats = record.stats.as_dict()
        valid = record.valid
        sums = [float64(value.masked_fill(~valid, 0.0).sum()) for value in stats.values()]
        none = torch.zeros_like(counts)
        row = torch.stack(
            [part.to(counts.device) for part in (*losses, share, none, none, float64(valid.sum()), *sums)]
        )
        self._names = (*_HEAD, *stats)
        self._alpha = record.alpha
        self._sums = row if self._sums is None else self._sums + row

    def add_gradients(self, lm_sq: Tensor, gap_sq: Tensor) -> None:
        """Add squared gradient norms (0-d each), which arrive in backward, after `add` of the same pass."""
        if self._sums is not None:
            start = _HEAD.index("grad_lm_sq")
            self._sums[start] += float64(lm_sq).to(self._sums.device)
            self._sums[start + 1] += float64(gap_sq).to(self._sums.device)

    def close(self) -> StepMeans:
        """Means over this step and all ranks; starts the next step. One all-reduce of some 15 numbers."""
        assert self._sums is not None
        sums, self._sums = _sum_over_ranks(self._sums), None
        head = dict(zip(_HEAD, sums[: len(_HEAD)].unbind(), strict=True))
        losses = sums[: len(_LOSSES)] / head["share"].clamp(min=1.0)
        stats = sums[len(_HEAD) :] / head["samples"].clamp(min=1.0)
        some = (head["samples"] > 0).double()
        return StepMeans(
            names=(*_LOSSES, *self._names[len(_HEAD) :]),
            values=torch.cat([losses, stats]),
            present=torch.cat([torch.ones_like(losses), some.expand_as(stats)]),
            alpha=self._alpha,
            gradients=torch.stack([head["grad_lm_sq"], head["grad_gap_sq"]]),
        )


def _sum_over_ranks(sums: Tensor) -> Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
    return sums
