"""What one training forward showed: detached tensors, floats only on request."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regap_patch.gap.statistics import GapStats


@dataclass(frozen=True)
class GapRecord:
    """The gap of the latest forward pass.

    Attributes:
        loss_lm: 0-d, the model's own loss; None where there was none (inside `measuring()`).
        loss_gap: 0-d, the gap reduced as `loss_lm` is.
        loss_weighted: 0-d, what was added to the loss: alpha * loss_gap, or 0 while the regulariser is off.
        alpha: the coefficient that was in force.
        stats: statistics of each sample, (B,) each.
        valid: (B,) bool, samples with image and text rows; the values of the others mean nothing.
        targets: (B,) int64, supervised targets.
    """

    loss_lm: Tensor | None
    loss_gap: Tensor
    loss_weighted: Tensor
    alpha: float
    stats: GapStats
    valid: Tensor
    targets: Tensor

    def floats(self) -> dict[str, float]:
        """Losses and the statistics' means over the valid samples (NaN without any). Waits for the device."""
        values = {
            "loss_gap": float(self.loss_gap),
            "loss_weighted": float(self.loss_weighted),
            "alpha": self.alpha,
        }
        if self.loss_lm is not None:
            values["loss_lm"] = float(self.loss_lm)
        samples = int(self.valid.sum())
        for name, value in self.stats.as_dict().items():
            total = float(value.double().masked_fill(~self.valid, 0.0).sum())
            values[name] = total / samples if samples else float("nan")
        return values

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value:.4g}" for name, value in self.floats().items())
        return f"GapRecord({shown})"
