"""Flags that transformers has removed since LLaVA's scripts were written, in today's words."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Container, Sequence

logger = logging.getLogger(__name__)

# Old name -> today's name, the value unchanged.
_RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "push_to_hub_token": "hub_token",
    "push_to_hub_model_id": "hub_model_id",
    "torchdynamo": "torch_compile_backend",
}
# Old switch -> what it became when it is on. Off, it is left out: today's default is off as well.
_SWITCHES = {
    "adafactor": ["--optim", "adafactor"],
    "group_by_length": ["--train_sampling_strategy", "group_by_length"],
    "include_tokens_per_second": ["--include_num_input_tokens_seen", "all"],
    "split_batches": ["--accelerator_config", '{"split_batches": true}'],
}
# Old flag -> the values that ask for what transformers does today anyway; these are left out, others refused.
_SETTLED = {
    "save_safetensors": ("true", "weights are always written as safetensors"),
    "half_precision_backend": ("auto cuda_amp cpu_amp", "mixed precision is always PyTorch's own"),
    "fp16_backend": ("auto cuda_amp cpu_amp", "mixed precision is always PyTorch's own"),
    "fp16_opt_level": ("o0 o1 o2 o3", "apex is no longer used"),
    "use_ipex": ("false", "Intel's extension is no longer used"),
    "jit_mode_eval": ("false", "evaluation is no longer traced"),
    "use_mps_device": ("true false", "an Apple GPU is taken where there is one"),
    "use_legacy_prediction_loop": ("false", "there is one prediction loop"),
    "past_index": ("-1", "no model keeps a past between batches"),
    "fsdp_min_num_params": ("0", "pass --fsdp_config '{\"min_num_params\": N}'"),
    "fsdp_transformer_layer_cls_to_wrap": (
        "",
        "pass --fsdp_config '{\"transformer_layer_cls_to_wrap\": [...]}'",
    ),
    "dispatch_batches": ("none", "pass --accelerator_config '{\"dispatch_batches\": ...}'"),
    "include_inputs_for_metrics": ("false", "pass --include_for_metrics inputs"),
    "overwrite_output_dir": (
        "true false",
        "a run resumes from its own checkpoints; choose another --output_dir to start anew",
    ),
}


def _group(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Splits a command line into (flag name, its values); what stands before the first flag has name ''."""
    groups: list[tuple[str, list[str]]] = [("", [])]
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            groups.append((name.replace("-", "_"), [value] if equals else []))
        else:
            groups[-1][1].append(word)
    return groups


def _is_on(values: list[str]) -> bool:
    return not values or values[0].lower() in {"true", "1", "yes", "y", "t"}


def _warmup(groups: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """`--warmup_ratio R` is today `--warmup_steps R`, R < 1; a positive `--warmup_steps` won, and wins."""
    asked = dict(groups)
    ratio = float(asked["warmup_ratio"][0]) if asked["warmup_ratio"] else math.nan
    if not 0 <= ratio <= 1:
        raise ValueError(
            f"--warmup_ratio {ratio} is no share of the training steps: pass a number from 0 to 1."
        )
    rest = [group for group in groups if group[0] != "warmup_ratio"]
    if float((asked.get("warmup_steps") or ["0"])[0]) > 0:
        return rest
    rest = [group for group in rest if group[0] != "warmup_steps"]
    return [*rest, ("warmup_steps", [repr(min(ratio, math.nextafter(1.0, 0.0)))])]  # 1.0 would be one step


def translate_flags(argv: Sequence[str], today: Container[str]) -> list[str]:
    """Rewrites a command line made for transformers 4 in today's flags.

    `--logging_dir` moves to the environment (TENSORBOARD_LOGGING_DIR), which is where transformers looks now.

    Args:
        argv: The flags, without the program's name.
        today: The flags that transformers has, which are left alone.

    Returns:
        The flags for transformers 5; flags that it still knows pass through in their order.

    Raises:
        ValueError: A removed flag asks for something that no longer exists.
    """
    groups = _group(argv)
    if "warmup_ratio" in dict(groups) and "warmup_ratio" not in today:
        groups = _warmup(groups)
    translated: list[str] = []
    for name, values in groups:
        if not name or name in today:
            translated += [f"--{name}"] * bool(name) + values
        elif name in _RENAMED:
            translated += [f"--{_RENAMED[name]}", *values]
        elif name in _SWITCHES:
            translated += _SWITCHES[name] if _is_on(values) else []
        elif name == "logging_dir":
            os.environ["TENSORBOARD_LOGGING_DIR"] = values[0] if values else ""
        elif name in _SETTLED:
            settled, reason = _SETTLED[name]
            value = values[0] if values else "true"
            if value.lower() not in settled.split():
                raise ValueError(f"--{name} {value} was removed from transformers: {reason}.")
            logger.warning("--%s %s has no effect: %s.", name, value, reason)
        else:
            translated += [f"--{name}", *values]
    return translated
