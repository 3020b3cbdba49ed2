"""Means over the optimizer steps between two lines of the trainer's log."""

from __future__ import annotations

from torch import Tensor

from regap_patch.patch.totals import StepMeans


class LogWindow:
    """Adds up steps on the device; the host waits once, when the trainer logs."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._counts: Tensor | None = None
        self._alpha = 0.0

    def add(self, step: StepMeans) -> None:
        """Take in one optimizer step."""
        present = step.values * step.present
        self._names, self._alpha = step.names, step.alpha
        self._sums = present if self._sums is None else self._sums + present
        self._counts = step.present if self._counts is None else self._counts + step.present

    def drain(self) -> dict[str, float]:
        """The means as `regap/...`, with the alpha of the last step; starts the next window."""
        if self._sums is None or self._counts is None:
            return {}
        rows = list(zip(self._names, self._sums.tolist(), self._counts.tolist(), strict=True))
        self._sums = self._counts = None
        return {
            "regap/alpha": self._alpha,
            **{f"regap/{name}": total / count for name, total, count in rows if count},
        }
