"""LoRA: which layers of the language model get an adapter, and what trains beside the adapters.

The names that a layer is found by are full paths. The last part of a name alone, which upstream goes by, also
fits layers of the vision tower where that is loaded already, as in a run that starts from a LLaVA.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from llava.train.arguments import ModelArguments, TrainingArguments

BIASES = ("none", "all", "lora_only")
_BESIDE_LANGUAGE_MODEL = {"mm_projector", "vision_tower", "vision_resampler", "image_newline"}


def refuse_contradictions(model_args: ModelArguments, training_args: TrainingArguments) -> None:
    """Check the flags of LoRA against each other, before anything is loaded.

    Raises:
        ValueError: two exclude each other, one has no meaning, or peft is missing.
    """
    if training_args.lora_weight_path and not training_args.lora_enable:
        raise ValueError(
            f"--lora_weight_path {training_args.lora_weight_path} starts from an existing adapter, but "
            "nothing asks for LoRA: pass --lora_enable True too, or leave the path out."
        )
    if not training_args.lora_enable:
        return
    if model_args.tune_mm_mlp_adapter:
        raise ValueError(
            "--tune_mm_mlp_adapter True trains the projector alone, and --lora_enable True adapters of the "
            "language model; drop one."
        )
    if training_args.lora_bias not in BIASES:
        raise ValueError(
            f"--lora_bias {training_args.lora_bias} is none of {', '.join(BIASES)}; pass one of these."
        )
    if training_args.lora_r < 1:
        raise ValueError(f"--lora_r {training_args.lora_r} is no rank; pass a number from 1 on.")
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"--lora_enable True needs peft, and importing it failed ({error}): pip install peft."
        ) from error


def adapted_layers(model: nn.Module) -> list[str]:
    """Full paths of the linear layers of the language model; its output layer is not among them.

    Args:
        model: a language model or a LLaVA, not wrapped.
    """
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not output
        and _BESIDE_LANGUAGE_MODEL.isdisjoint(path.split("."))
    ]


def find_all_linear_names(model: nn.Module) -> list[str]:
    """Last parts of the names of the layers that LoRA adapts, as upstream's function of this name."""
    return sorted({path.rsplit(".", 1)[-1] for path in adapted_layers(model)})


def target_pattern(model: nn.Module) -> str:
    r"""A regular expression of the full paths of `adapted_layers`, for `target_modules` of peft.

    peft matches a string as a whole, in every version, so a reader whose model has a vision tower adapts the
    same layers. It is one line: `model\.layers\.\d+\.mlp\.down_proj|...`.
    """
    kinds = dict.fromkeys(
        r"\.".join(r"\d+" if part.isdecimal() else re.escape(part) for part in path.split("."))
        for path in adapted_layers(model)
    )
    return "|".join(kinds)


def add_adapters(
    model: PreTrainedModel, model_args: ModelArguments, training_args: TrainingArguments
) -> PeftModel:
    """Freeze the language model and put adapters on its layers; projector and image newline train as before.

    The adapters' first weights follow from the seed alone (under ZeRO-3, loading draws other numbers before),
    or come from `--lora_weight_path`, with all else that was trained there.

    Args:
        model: with its tower, its projector and its final vocabulary, and `requires_grad` set for them.
        model_args: `model_name_or_path`, which the adapters will name as their base.
        training_args: `lora_*`, `bits`, `seed`.

    Raises:
        FileNotFoundError: `--lora_weight_path` holds no adapter.
        ValueError: the adapter there is of another kind.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    from llava.model.checkpoint_files import read_config
    from llava.train import lora_files, quantization

    beside = {
        parameter: parameter.requires_grad
        for name, parameter in model.named_parameters()
        if not _BESIDE_LANGUAGE_MODEL.isdisjoint(name.split("."))
    }
    config = LoraConfig(
        base_model_name_or_path=model_args.model_name_or_path,
        r=training_args.lora_r,
        lora_alpha=training_args.lora_alpha,
        lora_dropout=training_args.lora_dropout,
        bias=training_args.lora_bias,
        target_modules=target_pattern(model),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(training_args.seed + 1)  # the projector drew from `seed`
        # adapters stay in the dtype of their layers, as upstream's
        adapted: Any = get_peft_model(model, config, autocast_adapter_dtype=False)
    for parameter, trains in beside.items():  # peft froze them, or with --lora_bias all did not
        parameter.requires_grad = trains
    quantization.settle_dtypes(adapted, training_args)
    rows = read_config(model_args.model_name_or_path).get("vocab_size")
    training_args.added_tokens = model.config.vocab_size != rows  # whose embeddings the base does not have
    if training_args.lora_weight_path:
        lora_files.load_adapter(adapted, training_args.lora_weight_path)
    return adapted
