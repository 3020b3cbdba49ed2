"""How alpha, the coefficient of the gap, comes about: measured over the first steps, then frozen.

R has the unit of an embedding norm (or its square) and differs by orders of magnitude between towers and
language models, so a constant does not transfer; a ratio of what the two losses weigh does. It is frozen
because an alpha that keeps following the ratio makes the objective `log R`, which has no fixed trade-off.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from regap_patch.errors import CalibrationError

_SUMS = ("lm", "gap")


class Calibration:
    """Running sums of the two losses (or of their squared gradients) until enough optimizer steps were seen.

    `method` is "ratio": alpha = weight * mean(loss_lm) / mean(loss_gap); "gradient": alpha = weight *
    sqrt(sum |g_lm|^2 / sum |g_gap|^2); "fixed": alpha was given by hand. Sums are float64 and stay on the
    device: the one wait is at the end.

    Attributes:
        steps: optimizer steps to measure; None as long as nobody has said.
        seen: optimizer steps measured.
        alpha: the coefficient; None while measuring.
    """

    def __init__(
        self,
        *,
        method: str = "ratio",
        weight: float = 1.0,
        steps: int | None = None,
        alpha: float | None = None,
    ) -> None:
        self.method = method
        self.weight = weight
        self.steps = steps
        self.seen = 0
        self.alpha = alpha
        self._sums: dict[str, Tensor] = {}
        self._least: dict[str, Tensor] = {}
        self._most: dict[str, Tensor] = {}

    def observe(self, lm: Tensor, gap: Tensor) -> None:
        """Take in one optimizer step; after the last one alpha is frozen and later calls change nothing.

        Args:
            lm: 0-d float64, the loss of the language model (or its squared gradient), already summed over
                ranks.
            gap: 0-d float64, the same of the gap.

        Raises:
            CalibrationError: when the last step came and no ratio can be taken.
        """
        if self.alpha is not None:
            return
        for name, value in zip(_SUMS, (lm.detach(), gap.detach()), strict=True):
            first = name not in self._sums
            self._sums[name] = value.clone() if first else self._sums[name] + value
            self._least[name] = value.clone() if first else torch.minimum(self._least[name], value)
            self._most[name] = value.clone() if first else torch.maximum(self._most[name], value)
        self.seen += 1
        if self.steps is not None and self.seen >= self.steps:
            self.alpha = self._ratio()

    def _ratio(self) -> float:
        lm, gap = (float(self._sums[name]) for name in _SUMS)
        if not (math.isfinite(lm) and math.isfinite(gap) and gap > 1e-12 and lm > 0):
            raise CalibrationError(
                f"Alpha cannot be measured: over {self.seen} optimizer steps the language model's part "
                f"summed to {lm:.4g} and the gap's to {gap:.4g}; check that the data have images and "
                f"captions, or set alpha by hand."
            )
        ratio = lm / gap
        return self.weight * (math.sqrt(ratio) if self.method == "gradient" else ratio)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, exact under JSON: alpha, sums, means, least and greatest step."""
        state: dict[str, Any] = {
            "method": self.method,
            "weight": self.weight,
            "steps": self.steps,
            "seen": self.seen,
            "alpha": self.alpha,
        }
        for name in self._sums:
            total = float(self._sums[name])
            state[name] = {
                "sum": total,
                "mean": total / max(self.seen, 1),
                "min": float(self._least[name]),
                "max": float(self._most[name]),
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            CalibrationError: if the state was measured by another method or weight.
        """
        for name in ("method", "weight"):
            if state[name] != getattr(self, name):
                raise CalibrationError(
                    f"The stored calibration has {name}={state[name]!r}, but this run asks for "
                    f"{getattr(self, name)!r}: resume with the settings that the run was started with."
                )
        self.steps, self.seen, self.alpha = state["steps"], state["seen"], state["alpha"]
        present = [name for name in _SUMS if name in state]
        self._sums = {name: torch.tensor(state[name]["sum"], dtype=torch.float64) for name in present}
        self._least = {name: torch.tensor(state[name]["min"], dtype=torch.float64) for name in present}
        self._most = {name: torch.tensor(state[name]["max"], dtype=torch.float64) for name in present}
