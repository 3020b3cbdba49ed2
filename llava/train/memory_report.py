"""Say before training how much memory a process will need, how much there is, and what to change."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llava.train.memory_estimate import MASTER_AND_ADAM, MemoryPlan, memory_shares, remedies

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from llava.train.llava_trainer import LLaVATrainer

_SLACK = 1.1  # of the allocator
_READ = 32  # samples, in search of the longest
_SMALLER = "take adapters (--lora_enable True), 4 bits (--bits 4 with it), more devices or a smaller model."
# bytes of state for a parameter, of optimizers that keep less than two numbers of the weight's own size
_SMALL_STATES = {"adafactor": 0.0, "sgd": 0.0, "lion_32bit": 4.0}


def plan_of(trainer: LLaVATrainer, positions: int | None = None) -> MemoryPlan:
    """The plan of a run whose trainer is built and has not begun.

    Args:
        trainer: of the run.
        positions: of the longest sample; None reads some samples to find out.
    """
    model, args = trainer.model, trainer.args
    config = model.config
    parameters = list(model.parameters())
    training = [parameter for parameter in parameters if parameter.requires_grad]
    trained = sum(map(_count, training))
    deepspeed = getattr(args, "hf_deepspeed_config", None)
    zero = 0 if deepspeed is None else deepspeed.get_value("zero_optimization.stage", 0)
    live = 1e9  # DeepSpeed's default, and what ZeRO-3 would hold if it is a remedy
    if deepspeed is not None:
        live = deepspeed.get_value("zero_optimization.stage3_max_live_parameters", live)
    weights = sum(map(size_of, parameters))
    heads = getattr(config, "num_attention_heads", 1)
    return MemoryPlan(
        weights=weights,
        trained=trained,
        gradients=sum(map(size_of, training)),
        states=_states(args, training, deepspeed is not None),
        largest=int(live * weights / max(1, sum(map(_count, parameters)))),
        quantised=args.bits != 16,
        zero=zero,
        processes=args.world_size,
        offloaded=deepspeed is not None and deepspeed.is_offload(),
        checkpointed=args.gradient_checkpointing,
        batch=args.per_device_train_batch_size,
        positions=_longest_sample(trainer) if positions is None else positions,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        inner=getattr(config, "intermediate_size", 4 * config.hidden_size),
        key_width=config.hidden_size * getattr(config, "num_key_value_heads", heads) // heads,
        vocabulary=config.vocab_size,
        element=2 if args.bf16 or args.fp16 else 4,
        language_model=_how_it_learns(trainer),
    )


def _how_it_learns(trainer: LLaVATrainer) -> str:
    if trainer.trains_adapters:
        return "adapters with dropout" if trainer.args.lora_dropout > 0 else "adapters"
    return "frozen" if trainer.trains_projector_only else "trained"


def _count(parameter: Tensor) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel()))  # the whole of what ZeRO-3 has cut


def size_of(parameter: Tensor) -> int:
    """Bytes of a whole parameter, also where ZeRO-3 has cut it or bitsandbytes holds constants beside it."""
    constants = getattr(getattr(parameter, "quant_state", None), "absmax", None)  # of bitsandbytes' 4 bits
    return _count(parameter) * parameter.element_size() + (0 if constants is None else constants.nbytes)


def _states(args: Any, training: list[nn.Parameter], deepspeed: bool) -> float:
    name = str(getattr(args.optim, "value", args.optim))
    count = sum(map(_count, training))
    if deepspeed:
        return MASTER_AND_ADAM * count
    if "8bit" in name:
        return 2.0 * count
    return _SMALL_STATES[name] * count if name in _SMALL_STATES else 2.0 * sum(map(size_of, training))


def _longest_sample(trainer: LLaVATrainer) -> int:
    """Tokens of the longest of the samples that are largest in the file; nothing exceeds the limit."""
    from llava.constants import IMAGE_TOKEN_INDEX
    from llava.train.data import LazySupervisedDataset
    from llava.train.preprocess import SampleError

    limit = int(getattr(trainer.args, "model_max_length", 2048))
    dataset = trainer.train_dataset
    if not isinstance(dataset, LazySupervisedDataset) or dataset.data_args.image_aspect_ratio == "anyres":
        return limit
    image_tokens = dataset.data_args.image_tokens
    lengths = []
    for index in dataset.list_data_dict.largest(_READ, image_tokens):
        with suppress(SampleError):  # reported when training asks for it
            ids = dataset.sample(index)["input_ids"]
            lengths.append(len(ids) + int((ids == IMAGE_TOKEN_INDEX).sum()) * (image_tokens - 1))
    return min(limit, max(lengths, default=limit))


def available_bytes(device: torch.device, processes_here: int = 1) -> int | None:
    """What a process can have of its device, what it holds already included; None where nobody can tell."""
    import torch

    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device))
    if device.type != "cpu":
        return None
    import psutil

    held = psutil.Process().memory_info().rss
    return int(psutil.virtual_memory().available / processes_here + held)


def readable(size: float) -> str:
    """Bytes as people say them: `12.6 GiB`, or `3.1 MiB`."""
    return f"{size / 2**30:.1f} GiB" if size >= 0.1 * 2**30 else f"{size / 2**20:.1f} MiB"


def describe(plan: MemoryPlan, available: int | None) -> str:
    """The estimate in words, and what to change where it does not fit.

    Args:
        plan: of the run.
        available: bytes of the device; None leaves the comparison out.
    """
    shares = memory_shares(plan)
    parts = ", ".join(
        f"{name} {readable(getattr(shares, name))}"
        for name in ("weights", "gradients", "optimizer", "activations")
    )
    said = (
        f"Memory of a process, estimated: {parts} (for {plan.batch} x {plan.positions} tokens); "
        f"{readable(shares.total)} in all"
    )
    if available is None:
        return f"{said}."
    said += f", of {readable(available)} there."
    if shares.total * _SLACK <= available:
        return said
    changes: list[str] = []
    for change, changed in remedies(plan):
        if changes and change.split()[0] == changes[-1].split()[0]:
            changes.pop()  # a smaller batch in place of a small one
        changes.append(change)
        if memory_shares(changed).total * _SLACK <= available:
            return f"{said} That is too tight: pass {'; '.join(changes)}."
    tried = f" Not even {'; '.join(changes)} would make room:" if changes else ""
    return f"{said} That is too tight.{tried} {_SMALLER}"


def announce_memory(trainer: LLaVATrainer) -> None:
    """Print the estimate, on the first process; training goes on, whatever it says."""
    args = trainer.args
    if args.process_index == 0:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        print(describe(plan_of(trainer), available_bytes(args.device, here)), flush=True)
