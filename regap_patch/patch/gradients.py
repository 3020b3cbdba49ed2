"""What the backward pass tells: that it came, and the gradient norms for `calibration="gradient"`.

The norms are taken at the projector's output, so they need no second pass through the language model, and
work under activation checkpointing, DDP and ZeRO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from regap_patch.errors import PatchStateError
from regap_patch.gap.rows import ModalityRows
from regap_patch.patch.totals import StepTotals


class BackwardWitness:
    """Notices whether any backward pass starts from, or runs through, the loss that the model returned.

    A Trainer whose `compute_loss` makes a loss of its own drops the model's, and the gap with it; nothing
    else would tell.
    """

    def __init__(self) -> None:
        self.heard = False

    def watch(self, loss: Tensor) -> None:
        """Listen at this loss, unless one was heard already."""
        if not self.heard and loss.requires_grad:
            loss.register_hook(self._hear)  # type: ignore[no-untyped-call]

    def _hear(self, gradient: Tensor) -> None:
        self.heard = True

    def refuse_silence(self) -> None:
        """Call after a backward pass.

        Raises:
            PatchStateError: if none of the losses so far was reached by one.
        """
        if not self.heard:
            raise PatchStateError(
                "The model returned its loss, but no backward pass reached it, so the gap cannot train the "
                "projector: train on the model's own loss (a Trainer's compute_loss must return it, or a "
                "sum that holds it), or set weight=0 to record only."
            )


def watch_gradients(
    image_embeds: Tensor,
    loss_lm: Tensor,
    rows: ModalityRows,
    gap: Callable[[ModalityRows], Tensor],
    totals: StepTotals,
) -> None:
    """Let the coming backward pass add both squared norms to `totals`.

    While alpha is measured the regulariser is off, so the gradient that arrives at the projector's output is
    the language model's alone. Trainers scale a loss before backward (accumulation, ranks, fp16): the
    gradient that arrives at the loss is that scale, and is divided out.

    Args:
        image_embeds: the projector's output, in the graph of `loss_lm`.
        loss_lm: 0-d.
        rows: the rows made of `image_embeds`.
        gap: rows -> the reduced gap, 0-d.
        totals: where the sums go.
    """
    with torch.enable_grad():
        leaf = rows.image.detach().requires_grad_()
        (slope,) = torch.autograd.grad(gap(replace(rows, image=leaf)), leaf)
    gap_sq = slope.double().square().sum()
    scales: list[Tensor] = []

    def at_loss(gradient: Tensor) -> None:
        scales.append(gradient.detach())

    def at_projector(gradient: Tensor) -> None:
        totals.add_gradients((gradient.detach().double() / scales[-1].double()).square().sum(), gap_sq)

    loss_lm.register_hook(at_loss)  # type: ignore[no-untyped-call]
    image_embeds.register_hook(at_projector)  # type: ignore[no-untyped-call]
