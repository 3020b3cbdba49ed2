"""The patch inside a Hugging Face Trainer: steps, log lines, `regap.json`, resume.

Trainers differ in what they override, so what matters is wrapped on the instance: `log`, so that the log
history and every reporter get the numbers; `save_model`, so that `regap.json` lies inside a checkpoint before
it gets its name; `train`, to hear what is resumed.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from regap_patch.errors import CalibrationError, PatchStateError
from regap_patch.patch.apply import find_patch
from regap_patch.patch.handle import GapPatch
from regap_patch.patch.totals import StepMeans
from regap_patch.train.sidecar import (
    METHOD,
    SIDECAR,
    fingerprint,
    read_sidecar,
    refuse_other_config,
    versions,
    write_sidecar,
)
from regap_patch.train.window import LogWindow

logger = logging.getLogger(__name__)
_WRAPPED = ("log", "save_model", "train")


class ReGapCallback(TrainerCallback):
    """Moves a patch on with its trainer. Make it by `attach`.

    Example:
        >>> patch = apply_regap(model)
        >>> trainer = Trainer(model=model, ...)
        >>> ReGapCallback.attach(trainer)
        >>> trainer.train()
    """

    def __init__(self, patch: GapPatch, trainer: Any) -> None:
        self.patch = patch
        self.trainer = trainer
        self._window = LogWindow()
        self._start: StepMeans | dict[str, float] | None = None
        self._end: StepMeans | dict[str, float] | None = None
        self._resumed_from: Any = None
        self._data: dict[str, Any] | None = None
        self._inner = {name: getattr(trainer, name) for name in _WRAPPED}

    @classmethod
    def attach(cls, trainer: Any) -> ReGapCallback:
        """Let this trainer drive the patch that its model carries. Twice is safe.

        Raises:
            PatchStateError: if the model carries none.
        """
        patch = find_patch(trainer.model)
        if patch is None:
            raise PatchStateError(
                "The trainer's model carries no patch: call apply_regap(model) before "
                "ReGapCallback.attach(trainer)."
            )
        for present in trainer.callback_handler.callbacks:
            if isinstance(present, cls) and present.patch is patch:
                return present
        callback = cls(patch, trainer)
        for name in _WRAPPED:
            setattr(trainer, name, getattr(callback, f"_{name}"))
        trainer.add_callback(callback)
        return callback

    def detach(self) -> None:
        """Give the trainer its own methods back; the patch stays on the model."""
        for name in _WRAPPED:
            vars(self.trainer).pop(name, None)
        self.trainer.remove_callback(self)

    # ---- the trainer's own calls, on the way through

    def _log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:  # a line of training, not of evaluation or of the end
            logs = {**logs, **self._window.drain()}
        self._inner["log"](logs, *args, **kwargs)

    def _save_model(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        self._inner["save_model"](output_dir, *args, **kwargs)
        self._write(output_dir or self.trainer.args.output_dir)

    def _train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._resumed_from = resume_from_checkpoint
        try:
            return self._inner["train"](resume_from_checkpoint, *args, **kwargs)
        except Exception:
            self._explain_failed_resume()
            raise

    # ---- events

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Load what a resumed run had measured, and learn how long the warm-up is.

        Raises:
            PatchStateError: if the trainer has made itself another model (`model_init`).
            CalibrationError: if the warm-up is needed and there is none, or a resumed run left no
                `regap.json`.
        """
        if find_patch(self.trainer.model) is not self.patch:
            raise PatchStateError(
                "The trainer trains another model than the one that was patched (model_init makes a new "
                "one): pass `model=`, and patch that."
            )
        if state.global_step > 0:
            self._resume(state.global_step)
        self.patch.resolve_warmup(args.get_warmup_steps(state.max_steps))
        steps = self.patch.calibration.steps
        if (
            self.patch.config.acts
            and self.patch.calibration.alpha is None
            and steps
            and steps >= state.max_steps
        ):
            logger.warning(
                "Alpha is measured over %d optimizer steps and the run has %d: the regulariser will never "
                "act.",
                steps,
                state.max_steps,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the optimizer step, on every rank."""
        means = self.patch.step()
        self._window.add(means)
        self._start, self._end = self._start or means, means

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """For trainers that write checkpoints past `save_model`, as upstream's stage 1 does."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if folder.is_dir() and not (folder / SIDECAR).exists():
            self._write(folder)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """For scripts that write the final model past `save_model`, as upstream's do."""
        self._write(args.output_dir)

    # ---- the file

    def _write(self, folder: str | os.PathLike[str]) -> None:
        if self.trainer.args.should_save and self._start is not None:
            write_sidecar(folder, self._content())

    def _content(self) -> dict[str, Any]:
        if self._data is None:
            self._data = fingerprint(self.trainer.train_dataset)
        return {
            "method": METHOD,
            "step": self.trainer.state.global_step,
            "config": self.patch.config.to_dict(),
            "host": self.patch.host.name,
            "model": type(self.patch.outer).__name__,
            "alpha": self.patch.alpha,
            "calibration": self.patch.calibration.state_dict(),
            "gap": {"start": _floats(self._start), "end": _floats(self._end)},
            "versions": versions(),
            "data": self._data,
        }

    def _explain_failed_resume(self) -> None:
        """Say what the trainer's own error leaves open: there is nothing to go on from."""
        if not self._resumed_from or self.trainer.state.global_step > 0:
            return
        named = self._resumed_from is not True
        folder = self._resumed_from if named else get_last_checkpoint(self.trainer.args.output_dir)
        if folder is not None and not (Path(folder) / TRAINER_STATE_NAME).exists():
            logger.error(
                "%s cannot be resumed: it has no %s (upstream LLaVA's stage 1 saves the projector alone), so "
                "neither the optimizer nor alpha can go on; move the checkpoint folders away and start anew.",
                folder,
                TRAINER_STATE_NAME,
            )

    def _resume(self, step: int) -> None:
        named = isinstance(self._resumed_from, (str, os.PathLike))
        folder = Path(self._resumed_from if named else f"{self.trainer.args.output_dir}/checkpoint-{step}")
        content = read_sidecar(folder)
        if content is None:
            if self.patch.config.acts and self.patch.calibration.alpha is None:
                raise CalibrationError(
                    f"The run resumes at step {step}, but {folder} has no {SIDECAR} that says how far alpha "
                    f"was: start the run anew, or set alpha by hand (--regap_alpha)."
                )
            self.patch.steps = step
            return
        refuse_other_config(content, self.patch.config, folder)
        self.patch.calibration.load_state_dict(content["calibration"])
        self.patch.steps = content["step"]
        self._start, self._end = content["gap"]["start"], content["gap"]["end"]


def _floats(means: StepMeans | dict[str, float] | None) -> dict[str, float] | None:
    return means.floats() if isinstance(means, StepMeans) else means
