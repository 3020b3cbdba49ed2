"""The Hugging Face Trainer with LLaVA's optimizer groups, sample order and checkpoints.

Every save, of a checkpoint and of the final model, in either stage, goes through `save_model` and `_save`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_callback import ExportableState

from llava.train import checkpoint as checkpoints
from llava.train import lora_files, saved_files
from llava.train.nan_guard import NanGuard
from llava.train.optimizer_groups import optimizer_groups
from llava.train.sampler import EpochSampler, LengthGroupedSampler


class LLaVATrainer(Trainer):
    """Trains either stage of LLaVA, the second also as LoRA, and resumes each exactly.

    Args:
        *args: of `transformers.Trainer`.
        tokenizer: the name that callers written for transformers 4 use for `processing_class`.
        fingerprint: what marks this run's checkpoints (`run_fingerprint`).
        **kwargs: of `transformers.Trainer`.
    """

    def __init__(
        self, *args: Any, tokenizer: Any = None, fingerprint: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if tokenizer is not None:
            kwargs.setdefault("processing_class", tokenizer)
        super().__init__(*args, **kwargs)
        self.fingerprint = fingerprint or {}
        self.nan_guard = NanGuard()
        self.train_sampler: EpochSampler | None = None
        # the guard looks at the same losses without waiting for the device at every step
        self.args.logging_nan_inf_filter = False

    @property
    def trains_projector_only(self) -> bool:
        """Whether this is stage 1, whose checkpoints hold the projector instead of the model."""
        return bool(getattr(self.args, "tune_mm_mlp_adapter", False))

    @property
    def trains_adapters(self) -> bool:
        """Whether the model is wrapped by peft: checkpoints hold the adapters and what trains beside them."""
        return hasattr(self.model, "peft_config") and hasattr(self.model, "get_base_model")

    @property
    def trains_a_part(self) -> bool:
        """Whether the language model itself stays as it was, and out of the checkpoints."""
        return self.trains_projector_only or self.trains_adapters

    # ---- what is optimized, and in which order the samples come ----

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer that the flags ask for, over LLaVA's parameter groups."""
        if self.optimizer is not None:
            return super().create_optimizer(model)
        target = self.model if model is None else model
        asked = self.optimizer_cls_and_kwargs
        optimizer_class, options = asked or self.get_optimizer_cls_and_kwargs(self.args, target)
        rates = (getattr(self.args, f"mm_{part}_lr", None) for part in ("projector", "vision_tower"))
        groups = optimizer_groups(target, self.args.weight_decay, *rates)
        self.optimizer_cls_and_kwargs = (optimizer_class, {"params": groups, **options})
        try:
            return super().create_optimizer(model)
        finally:
            self.optimizer_cls_and_kwargs = asked

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if getattr(self.args, "group_by_modality_length", False):
            self.train_sampler = LengthGroupedSampler(
                self.args.train_batch_size,
                self.args.world_size * self.args.gradient_accumulation_steps,
                lengths=dataset.modality_lengths,
                group_by_modality=True,
                seed=seed,
            )
        elif self.args.train_sampling_strategy == "random" and hasattr(dataset, "__len__"):
            self.train_sampler = EpochSampler(len(dataset), seed)
        else:
            return super()._get_train_sampler(train_dataset)
        return self.train_sampler

    def _run_epoch(self, *, epoch: int, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # resumed after the last step: only saving is left
            self.control.should_training_stop = True
            return
        if self.train_sampler is not None:  # accelerate's wrappers do not pass the epoch on in every nesting
            self.train_sampler.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **kwargs)

    # ---- the loss ----

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The model's loss; the sample ids stay behind, for the NaN guard."""
        inputs = dict(inputs)
        sample_ids = inputs.pop("sample_ids", ())
        labels = inputs.get("labels")
        result = super().compute_loss(model, inputs, *args, **kwargs)
        if model.training:
            loss = result[0] if isinstance(result, tuple) else result
            self.nan_guard.watch(loss, labels, self.state.global_step + 1, sample_ids)
        return result

    def _get_num_items_in_batch(self, *args: Any, **kwargs: Any) -> Any:
        # a step without a single supervised token has the loss 0/1, not 0/0, which would destroy the weights
        count = super()._get_num_items_in_batch(*args, **kwargs)
        return count.clamp(min=1) if isinstance(count, Tensor) else count

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self.control.should_log or self.nan_guard.is_full:
            self._look_for_nan()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _look_for_nan(self) -> None:
        masked = self.nan_guard.look()
        if masked:
            print(
                f"{masked} batches before step {self.state.global_step} had no supervised token and taught "
                f"nothing ({self.nan_guard.masked_batches} so far); does --version fit the data?",
                flush=True,
            )

    # ---- saving ----

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save what the stage trains, unless a NaN has passed through it. Every process calls; one writes."""
        self._look_for_nan()
        if not self.trains_a_part:
            super().save_model(output_dir, _internal_call)
            return
        state = self.part_state(self.model)
        if self.args.should_save:
            self._save(output_dir, state_dict=state)

    def part_state(self, model: Any) -> dict[str, Any]:
        """What `_save` writes of a part: whole tensors on the CPU. Under ZeRO-3 every process calls.

        Args:
            model: this run's, or stand-ins for its parameters under their names.
        """
        if self.trains_adapters:
            bias = self.model.peft_config["default"].bias
            added = getattr(self.args, "added_tokens", False)
            return lora_files.trained_state(model.named_parameters(), bias, with_embeddings=added)
        return saved_files.adapter_state(model, getattr(self.args, "use_im_start_end", False))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:
            return
        directory = Path(self.args.output_dir if output_dir is None else output_dir)
        model = self.accelerator.unwrap_model(self.model)
        with checkpoints.written_aside(directory) as aside, saved_files.config_for_use(model):
            if self.trains_projector_only:
                torch.save(state_dict, aside / saved_files.PROJECTOR_FILE)
                model.config.save_pretrained(aside)
            elif self.trains_adapters:
                lora_files.write_adapter(model, aside, state_dict or self.part_state(model))
                saved_files.write_tokenizer(self.processing_class, aside)
            else:
                model.save_pretrained(aside, state_dict=state_dict)
                saved_files.write_tokenizer(self.processing_class, aside)
                torch.save(self.args, aside / TRAINING_ARGS_NAME)
        projector = saved_files.projector_file(directory)
        if self.trains_projector_only and projector.parent != directory:
            projector.parent.mkdir(parents=True, exist_ok=True)
            os.replace(directory / saved_files.PROJECTOR_FILE, projector)

    def save_state(self) -> None:
        """`trainer_state.json` of the finished run, beside the final model."""
        if self.args.should_save:
            with checkpoints.written_aside(Path(self.args.output_dir)) as aside:
                self.state.save_to_json(str(aside / TRAINER_STATE_NAME))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.store_flos()
        final = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        written = checkpoints.temporary_name(final)
        if self.args.local_process_index == 0:
            shutil.rmtree(written, ignore_errors=True)
        self.accelerator.wait_for_everyone()

        self.save_model(str(written), _internal_call=True)
        if not self.args.save_only_model:
            self._save_optimizer_and_scheduler(str(written))
            self._save_scaler(str(written))
            self._save_rng_state(str(written))
        if self.args.should_save:
            self._note_callback_states()
            self.state.save_to_json(str(written / TRAINER_STATE_NAME))

        # one process names the folder; then the first of any node that wrote to a disk of its own
        for names_it in (self.args.should_save, self.args.local_process_index == 0):
            self.accelerator.wait_for_everyone()
            if names_it and written.exists():
                checkpoints.seal(final, self.fingerprint)
                checkpoints.keep_newest(final.parent, self.args.save_total_limit)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(final))

    def _note_callback_states(self) -> None:
        states: dict[str, list[dict[str, Any]]] = {}
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                states.setdefault(type(callback).__name__, []).append(callback.state())
        self.state.stateful_callbacks |= {
            name: found[0] if len(found) == 1 else found for name, found in states.items()
        }

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled and self.trains_a_part:
            # DeepSpeed would otherwise write the frozen language model into every checkpoint
            self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
            if self.args.should_save:
                torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)
            return
        super()._save_optimizer_and_scheduler(output_dir)

    # ---- resuming ----

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        target = self.model if model is None else model
        if self.trains_adapters:
            lora_files.load_adapter(target, resume_from_checkpoint)
        else:
            saved_files.load_weights(target, Path(resume_from_checkpoint))

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any
    ) -> Any:
        partial = self.is_deepspeed_enabled and self.trains_a_part
        prepared = super()._prepare_for_training(
            max_steps, train_dataloader, None if partial else resume_from_checkpoint
        )
        if partial and resume_from_checkpoint is not None:
            found, _ = self.model_wrapped.load_checkpoint(resume_from_checkpoint, load_module_strict=False)
            if found is None:
                raise FileNotFoundError(
                    f"The checkpoint {resume_from_checkpoint} holds no state of this DeepSpeed configuration "
                    "and number of processes; resume the run as it was started."
                )
            self._load_optimizer_and_scheduler(resume_from_checkpoint)
            self._load_scaler(resume_from_checkpoint)
        return prepared
