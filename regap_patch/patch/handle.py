"""The patch itself: what it has captured, what it has measured, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from regap_patch.errors import CalibrationError, PatchStateError, UnsupportedModelError
from regap_patch.gap.calibration import Calibration
from regap_patch.gap.losses import gap_loss
from regap_patch.gap.reduction import reduce_like_lm, supervised_targets
from regap_patch.gap.rows import ModalityRows
from regap_patch.gap.statistics import gap_statistics
from regap_patch.hosts.host import Host
from regap_patch.hosts.table import unwrapped
from regap_patch.patch.config import WARMUP, ReGapConfig
from regap_patch.patch.gradients import BackwardWitness, watch_gradients
from regap_patch.patch.hooks import in_backward, loss_in, with_loss
from regap_patch.patch.record import GapRecord
from regap_patch.patch.stage import refuse_finetuning
from regap_patch.patch.totals import StepMeans, StepTotals


class GapPatch:
    """A patch on one model, from `apply_regap` to `remove()`; as a context manager it removes itself.

    Attributes:
        config: its settings.
        host: the model family.
        outer: the module whose forward returns the loss.
        calibration: how far alpha is.
        last: the record of the latest forward pass, None before the first.
        steps: optimizer steps taken.
    """

    def __init__(self, config: ReGapConfig, host: Host, outer: nn.Module) -> None:
        steps = config.calibration_steps
        self.config = config
        self.host = host
        self.outer = outer
        self.calibration = Calibration(
            method=config.calibration if config.alpha is None else "fixed",
            weight=config.weight,
            steps=None if steps == WARMUP else int(steps),
            alpha=config.alpha,
        )
        self.last: GapRecord | None = None
        self.steps = 0
        self.handles: list[RemovableHandle] = []
        self._captured: Tensor | None = None
        self._totals = StepTotals()
        self._measuring: list[Tensor | None] = []
        self._lm_is_frozen = False
        self._witness = BackwardWitness()

    # ---- what a user calls

    @property
    def alpha(self) -> float:
        """The coefficient in force: 0 while it is measured, less than the measured one on the ramp."""
        if self.calibration.alpha is None or not self.config.acts:
            return 0.0
        parts = self.config.ramp_steps + 1
        begun = self.steps - self.calibration.seen + 1  # optimizer steps since alpha is known, and this one
        return self.calibration.alpha * min(begun / parts, 1.0)

    def step(self) -> StepMeans:
        """Close an optimizer step: means over its forward passes and all ranks, and the calibration moves on.

        Every rank must call it. One small all-reduce.

        Raises:
            PatchStateError: if no training forward came since the last step, one never got its loss, or none
                of the losses so far went into a backward pass.
            CalibrationError: if this step ends the calibration and no ratio can be taken.
        """
        self._refuse_leftover()
        if self._totals.empty:
            raise PatchStateError(
                "step() closes an optimizer step, but no training forward came since the last one: call it "
                "once after each optimizer.step(), on the model that apply_regap() got."
            )
        if self.config.acts:
            self._witness.refuse_silence()
        means = self._totals.close()
        self.steps += 1
        if self.config.acts:
            lm, gap = (
                means.gradients.unbind()
                if self.calibration.method == "gradient"
                else means.values[:2].unbind()
            )
            self.calibration.observe(lm, gap)
        return means

    @contextmanager
    def measuring(self, text_mask: Tensor | None = None) -> Iterator[GapPatch]:
        """Record statistics of every forward pass inside, in evaluation mode too; no loss is changed.

        Args:
            text_mask: (B, L) bool, which `input_ids` are text; by default the supervised ones.
        """
        self._measuring.append(text_mask)
        try:
            yield self
        finally:
            self._measuring.pop()
            self.forget()

    def remove(self) -> None:
        """Take the hooks off, last first; the model is what it was. Twice is safe."""
        while self.handles:
            self.handles.pop().remove()
        self.forget()

    def resolve_warmup(self, steps: int) -> None:
        """Say how many steps the trainer warms up: so long `calibration_steps="warmup"` measures alpha.

        Raises:
            CalibrationError: for a trainer without warm-up.
        """
        if not self._needs_warmup():
            return
        if steps < 1:
            raise CalibrationError(
                "Alpha is to be measured during the trainer's warm-up, but it has none: give the trainer "
                "warm-up steps, or set calibration_steps to a number (--regap_calibration_steps N)."
            )
        self.calibration.steps = steps

    def __enter__(self) -> GapPatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        state = self.calibration
        if not self.handles:
            phase = "removed"
        elif not self.config.acts:
            phase = "recording only"
        elif state.alpha is None:
            phase = f"measuring alpha, {state.seen} of {state.steps or '?'} steps"
        else:
            phase = f"alpha={self.alpha:.6g}"
        return (
            f"GapPatch({type(self.outer).__name__}, host={self.host.name}, loss={self.config.loss}, {phase})"
        )

    # ---- what the hooks call

    @property
    def active(self) -> bool:
        """Whether a forward pass now counts: a training one, or any inside `measuring()`."""
        return bool(self._measuring) or (self.outer.training and torch.is_grad_enabled())

    def admit(self, module: nn.Module) -> None:
        """Before a forward pass: refuse what could not be right.

        Raises:
            PatchStateError: for a leftover of the projector.
            FinetuneError: if the language model trains.
            CalibrationError: if nobody has said how long the warm-up is.
            UnsupportedModelError: under `nn.DataParallel`.
        """
        if not self.active:
            return
        self._refuse_leftover()
        if getattr(module, "_is_replica", False):
            raise UnsupportedModelError(
                "nn.DataParallel runs replicas that share one patch: start with torchrun (DDP)."
            )
        if self._measuring or not self.config.acts:
            return
        if not self._lm_is_frozen:
            if not self.config.allow_finetune:
                refuse_finetuning(self.host, unwrapped(self.outer))
            self._lm_is_frozen = True
        if self._needs_warmup():
            raise CalibrationError(
                "calibration_steps='warmup' needs a trainer that has a warm-up, but none was attached: call "
                "ReGapCallback.attach(trainer), or set calibration_steps to a number."
            )

    def capture(self, output: Any) -> None:
        """After the projector: keep its output, with its graph, for the loss.

        Raises:
            PatchStateError: if an earlier output still waits.
        """
        if not self.active or in_backward():
            return
        if self._captured is not None:
            self.forget()
            raise PatchStateError(
                "The projector ran twice before the model returned a loss, but one loss has room for one "
                "gap: call the model itself, not its parts, and wrap it (PEFT) before apply_regap()."
            )
        self._captured = output

    def forget(self) -> None:
        """Let go of what was captured."""
        self._captured = None

    def settle(self, arguments: Mapping[str, Any], output: Any) -> Any:
        """After the forward pass: record it, and return the output with the weighted gap added to its loss.

        Raises:
            PatchStateError: if there is no loss, no `input_ids`, or images that did not pass the hook.
        """
        image_embeds, self._captured = self._captured, None
        if not self.active:
            return None
        if image_embeds is None and self.host.sees_images(arguments):
            raise PatchStateError(
                "The model was given images, but the projector's hook saw none of them: do not call "
                ".forward() directly, and patch before torch.compile."
            )
        loss_lm = loss_in(output) if arguments.get("labels") is not None else None
        if not self._measuring and loss_lm is None:
            raise PatchStateError(
                "A training forward must return its loss, but this one got no labels or returned none: give "
                "labels to the model (label smoothing and compute_loss_func take them away), or call "
                "model.eval() first."
            )
        text_mask = self._measuring[-1] if self._measuring else None
        rows = self.host.rows(unwrapped(self.outer), arguments, image_embeds, text_mask)
        return self._add_gap(rows, arguments, output, loss_lm, image_embeds)

    def _add_gap(
        self,
        rows: ModalityRows,
        arguments: Mapping[str, Any],
        output: Any,
        loss_lm: Tensor | None,
        image_embeds: Tensor | None,
    ) -> Any:
        valid = rows.valid()
        labels, num_items = arguments.get("labels"), arguments.get("num_items_in_batch")
        targets = rows.text_count() if labels is None else supervised_targets(labels).to(valid.device)

        def gap_of(some: ModalityRows) -> Tensor:
            return reduce_like_lm(gap_loss(self.config.loss, some), valid, targets, num_items)

        adds = self.alpha != 0.0 and not self._measuring
        with torch.set_grad_enabled(adds and torch.is_grad_enabled()):
            gap = gap_of(rows)
            weighted = self.alpha * gap if adds else torch.zeros_like(gap)
        self.last = GapRecord(
            loss_lm=None if loss_lm is None else loss_lm.detach().clone(),
            loss_gap=gap.detach().clone(),
            loss_weighted=weighted.detach().clone(),
            alpha=self.alpha,
            stats=gap_statistics(rows, pairwise=self.config.loss == "pairwise_l2"),
            valid=valid,
            targets=targets,
        )
        if loss_lm is None or self._measuring:
            return None
        self._totals.add(self.last, loss_lm.detach(), num_items)
        measures = self.config.acts and self.calibration.alpha is None
        if measures and self.calibration.method == "gradient" and image_embeds is not None:
            watch_gradients(image_embeds, loss_lm, rows, gap_of, self._totals)
        if not adds or image_embeds is None:
            self._witness.watch(loss_lm)
            return None
        if not image_embeds.requires_grad:
            raise PatchStateError(
                "The gap must train the projector, but its output carries no gradient: let its parameters "
                "require grad, and do not run it under reentrant checkpointing."
            )
        loss = loss_lm + weighted.to(loss_lm)
        self._witness.watch(loss)
        return with_loss(output, loss)

    def _needs_warmup(self) -> bool:
        return self.config.acts and self.calibration.alpha is None and self.calibration.steps is None

    def _refuse_leftover(self) -> None:
        if self._captured is not None:
            self.forget()
            raise PatchStateError(
                "The projector ran, but the model that apply_regap() got did not return a loss after it: "
                "call that model itself, not its parts, and wrap it (PEFT) before apply_regap()."
            )
