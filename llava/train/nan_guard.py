"""Watches the training loss without waiting for the device.

Asking every step whether the loss is a number would stall the accelerator every step. The guard keeps the
losses of a logging window on the device, with the ids of the samples behind them, and looks once: when the
window is logged anyway, and before anything is saved, so that no checkpoint holds weights that a NaN has
passed through.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from llava.constants import IGNORE_INDEX


class NonFiniteLossError(FloatingPointError):
    """The loss became NaN or infinite; the sentence names the step and the samples."""


class NanGuard:
    """Losses and sample ids since the last look."""

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._origins: list[tuple[int, Sequence[str]]] = []
        self._masked: torch.Tensor | int = 0
        self.masked_batches = 0

    def watch(
        self, loss: torch.Tensor, labels: torch.Tensor | None, step: int, sample_ids: Sequence[str]
    ) -> None:
        """Remember one forward pass.

        Args:
            loss: 0-d, on the device; kept detached.
            labels: (B, L) as collated, -100 where nothing is to be learned.
            step: the optimizer step in progress, counted from 1.
            sample_ids: the B ids, for the message.
        """
        self._losses.append(loss.detach().float())
        self._origins.append((step, sample_ids))
        if labels is not None:
            self._masked = self._masked + (labels[:, 1:] == IGNORE_INDEX).all()

    @property
    def is_full(self) -> bool:
        """Whether a look is due even if nothing is logged: the window holds a thousand losses."""
        return len(self._losses) >= 1000

    def look(self) -> int:
        """Check the window and start a new one.

        Returns:
            How many of its batches had no supervised token (they teach nothing, and are counted).

        Raises:
            NonFiniteLossError: a loss in the window is NaN or infinite.
        """
        if not self._losses:
            return 0
        *losses, masked = torch.stack(
            [*self._losses, torch.as_tensor(self._masked).to(self._losses[0])]
        ).tolist()
        origins = self._origins
        self._losses, self._origins, self._masked = [], [], 0
        for loss, (step, sample_ids) in zip(losses, origins, strict=True):
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"The loss became {loss} at step {step} on the samples {', '.join(sample_ids)}; look at "
                    "them, or lower --learning_rate (the checkpoints were written before and hold no NaN)."
                )
        self.masked_batches += int(masked)
        return int(masked)
