"""A run whose language model is held in 4 or 8 bits while adapters train on it (QLoRA)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from llava.model.quantization import BITS, quantization_config, spare_odd_layers

if TYPE_CHECKING:
    from torch import nn

    from llava.train.arguments import TrainingArguments

_QUANT_TYPES = ("nf4", "fp4")


def refuse_contradictions(training_args: TrainingArguments) -> None:
    """Check `--bits` and what belongs to it, before anything is loaded.

    Raises:
        ValueError: a value without meaning, nothing that could train, or a missing package.
    """
    bits = training_args.bits
    if bits == 16:
        return
    if bits not in BITS:
        raise ValueError(f"--bits {bits} is none of 4, 8 and 16; pass one of these.")
    if not training_args.lora_enable:
        raise ValueError(
            f"--bits {bits} freezes the language model in {bits} bits, and nothing would train it: pass "
            "--lora_enable True too, or leave --bits out."
        )
    if training_args.quant_type not in _QUANT_TYPES:
        raise ValueError(
            f"--quant_type {training_args.quant_type} is neither nf4 nor fp4; pass one of these."
        )
    deepspeed = getattr(training_args, "hf_deepspeed_config", None)
    if deepspeed is not None and deepspeed.is_zero3():
        raise ValueError(
            f"--bits {bits} and ZeRO-3 exclude each other: bitsandbytes' weights cannot be cut into pieces; "
            "pass --deepspeed deepspeed_configs/zero2.json, which a quantised model rarely outgrows."
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"--bits {bits} needs bitsandbytes, and importing it failed ({error}): pip install bitsandbytes."
        ) from error


def loading_options(training_args: TrainingArguments, source: str, config: dict[str, Any]) -> dict[str, Any]:
    """What `from_pretrained` must be told; nothing for a run in full precision.

    Args:
        training_args: `bits`, `quant_type`, `double_quant`.
        source: the checkpoint's name, for the error.
        config: its `config.json`.

    Raises:
        ValueError: the checkpoint is quantised already.
    """
    held = config.get("quantization_config")
    if held is not None:
        method = held.get("quant_method", "unknown method") if isinstance(held, dict) else held
        raise ValueError(
            f"--model_name_or_path {source} is quantised already ({method}), and training starts from whole "
            "weights: pass the checkpoint that it was made from; --bits 4 or 8 quantises while loading."
        )
    if training_args.bits == 16:
        return {}
    return {
        "device_map": {"": training_args.device},
        "quantization_config": quantization_config(
            training_args.bits,
            training_args.run_dtype,
            quant_type=training_args.quant_type,
            double_quant=training_args.double_quant,
        ),
    }


def prepare(model: nn.Module) -> None:
    """Freeze a quantised language model; what is not quantised goes to float32, for stable gradients."""
    from peft import prepare_model_for_kbit_training

    spare_odd_layers(model)
    warnings.filterwarnings("ignore", "MatMul8bitLt: inputs will be cast")  # one line for every product
    prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # the Trainer switches it on


def settle_dtypes(model: nn.Module, training_args: TrainingArguments) -> None:
    """Give the parts that are not quantised their dtypes.

    With `--bf16` projector, adapters and embeddings, input and output, are kept in it, as upstream's, while
    norms stay float32. Else all is float32: with `--fp16` autocast computes in it, and gradients in it could
    not be unscaled. The tower has its dtype already.

    Args:
        model: that peft has wrapped.
        training_args: `bits`, `bf16`.
    """
    import torch

    if training_args.bits == 16:
        return
    dtype = torch.bfloat16 if training_args.bf16 else torch.float32
    for name, parameter in model.named_parameters():
        beside = "mm_projector" in name or name.endswith("image_newline")
        if beside or (training_args.bf16 and _in_bf16(name)):
            parameter.data = parameter.data.to(dtype)


def _in_bf16(name: str) -> bool:
    return "lora_" in name or name.endswith(("embed_tokens.weight", "lm_head.weight"))
