"""The folder that a LoRA run leaves at every save: what upstream leaves at the end, and complete.

- `adapter_config.json`: settings, in fields that peft has had for long;
- `adapter_model.safetensors`: `base_model.model.model.layers.0.mlp.down_proj.lora_A.weight`, ...;
- `non_lora_trainables.bin`: all else that was trained, `base_model.model.model.mm_projector.0.weight`, ...;
- `config.json`, the settings of generation, and the tokenizer.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llava.model.layouts import ADAPTER_CONFIG
from llava.model.layouts import TRAINED_FILE as OTHER_WEIGHTS
from llava.model.lora_adapter import ADAPTER_WEIGHTS, OLD_ADAPTER_WEIGHTS
from llava.model.published_names import current_state_dict, published_state_dict
from llava.model.zero3 import gathered
from llava.train.saved_files import maybe_zero_3

if TYPE_CHECKING:
    from peft import PeftModel

_EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight")
_PROJECTOR = ("mm_projector", "image_newline")


def published_name(name: str) -> str:
    """A parameter's name in the files: without peft's name for the adapter and its layer inside a layer."""
    return name.replace(".default", "").replace(".base_layer", "")


def get_peft_state_maybe_zero_3(named_params: Iterable[tuple[str, Tensor]], bias: str) -> dict[str, Tensor]:
    """Whole CPU copies of the adapters' weights, and of the biases that train with them.

    Args:
        named_params: of a model that peft has wrapped; under ZeRO-3 all processes must call.
        bias: `none`, `all` or `lora_only`, as the adapters were made with.

    Raises:
        NotImplementedError: another value of `bias`.
    """
    if bias not in ("none", "all", "lora_only"):
        raise NotImplementedError(f"bias is {bias!r}; it must be none, all or lora_only.")
    params = dict(named_params)
    layers = {name.split(".lora_")[0] for name in params if ".lora_" in name}

    def belongs(name: str) -> bool:
        if "lora_" in name or not name.endswith(".bias"):
            return "lora_" in name
        adapted = published_name(name).removesuffix(".bias") in layers
        return bias == "all" or (bias == "lora_only" and adapted)

    return {published_name(name): maybe_zero_3(param) for name, param in params.items() if belongs(name)}


def get_peft_state_non_lora_maybe_zero_3(
    named_params: Iterable[tuple[str, Tensor]], require_grad_only: bool = True
) -> dict[str, Tensor]:
    """Whole CPU copies of what is no adapter: the projector and all else that trains.

    Args:
        named_params: of a model that peft has wrapped; under ZeRO-3 all processes must call.
        require_grad_only: leave out what is frozen.
    """
    return {
        published_name(name): maybe_zero_3(param)
        for name, param in named_params
        if "lora_" not in name and (param.requires_grad or not require_grad_only)
    }


def frozen_but_saved(
    named_params: Iterable[tuple[str, Tensor]], with_embeddings: bool = False
) -> list[tuple[str, Tensor]]:
    """What a LoRA run has to save although it does not train, since the base may be without it.

    Args:
        named_params: of a model that peft has wrapped.
        with_embeddings: tokens were added, so the embeddings are not those of the base.
    """
    return [
        (name, param)
        for name, param in named_params
        if not param.requires_grad
        and (any(part in name for part in _PROJECTOR) or (with_embeddings and name.endswith(_EMBEDDINGS)))
    ]


def trained_state(
    named_params: Iterable[tuple[str, Tensor]], bias: str, with_embeddings: bool = False
) -> dict[str, dict[str, Tensor]]:
    """What a LoRA run has to save, by the file that it goes to.

    Biases of the language model are in both: readers of LLaVA look into one, those of peft into the other.

    Args:
        named_params: of a model that peft has wrapped; under ZeRO-3 all processes must call.
        bias: as the adapters were made with.
        with_embeddings: of `frozen_but_saved`.
    """
    params = list(named_params)
    beside = (*_PROJECTOR, "vision_tower")
    adapted = [
        (name, p) for name, p in params if p.requires_grad and not any(part in name for part in beside)
    ]
    others = get_peft_state_non_lora_maybe_zero_3(params)
    frozen = frozen_but_saved(params, with_embeddings)
    others |= get_peft_state_non_lora_maybe_zero_3(frozen, require_grad_only=False)
    return {
        ADAPTER_WEIGHTS: get_peft_state_maybe_zero_3(adapted, bias),
        OTHER_WEIGHTS: published_state_dict(others),
    }


def write_adapter(model: PeftModel, directory: Path, state: Mapping[str, Mapping[str, Tensor]]) -> None:
    """All files of the folder but the tokenizer's.

    Args:
        model: its configuration and those of its adapters are written.
        directory: where to.
        state: of `trained_state`.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in state[ADAPTER_WEIGHTS].items()}
    save_file(tensors, directory / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    torch.save(dict(state[OTHER_WEIGHTS]), directory / OTHER_WEIGHTS)
    settings = json.dumps(adapter_config(model), indent=2, sort_keys=True)
    (directory / ADAPTER_CONFIG).write_text(settings + "\n")
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):  # how this run held the base, which is not quantised itself
        del config.quantization_config
    config.save_pretrained(directory)
    model.get_base_model().generation_config.save_pretrained(directory)


def adapter_config(model: PeftModel) -> dict[str, Any]:
    """`adapter_config.json`. Only fields that old versions of peft know: they refuse others."""
    config = model.peft_config["default"]
    return {
        "auto_mapping": None,
        "base_model_name_or_path": config.base_model_name_or_path,
        "bias": config.bias,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": config.r,
        "revision": None,
        "target_modules": config.target_modules,
        "task_type": "CAUSAL_LM",
    }


def load_adapter(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Put the weights of a LoRA folder, ours or upstream's, into a model that has adapters of that kind.

    Args:
        model: that peft has wrapped.
        folder: a local folder.

    Raises:
        FileNotFoundError: no adapter in it.
        ValueError: another rank or scale, or weights that do not fit.
    """
    _refuse_other_settings(model, Path(folder))
    held = read_adapter(folder)
    refuse_other_names(model, held, folder)
    ours = {published_name(name): param for name, param in model.named_parameters()}
    for name, tensor in held.items():
        with torch.no_grad(), gathered([ours[name]], write=True):
            if ours[name].shape != tensor.shape:
                raise ValueError(
                    f"{name} is {tuple(tensor.shape)} in the adapter in '{folder}' and "
                    f"{tuple(ours[name].shape)} in this model: start from the base that it was trained on."
                )
            ours[name].copy_(tensor)


def refuse_other_names(model: nn.Module, held: Mapping[str, Tensor], folder: str | os.PathLike[str]) -> None:
    """Check that the weights of a LoRA folder are those of this model, by name.

    Args:
        model: that peft has wrapped.
        held: of `read_adapter`.
        folder: named in the error.

    Raises:
        ValueError: a weight is missing, or there is one too many.
    """
    ours = {published_name(name) for name, _ in model.named_parameters()}
    surplus = sorted(held.keys() - ours)
    missing = sorted(name for name in ours - held.keys() if "lora_" in name)
    if surplus or missing:
        what = f"holds {surplus[0]}" if surplus else f"lacks {missing[0]}"
        raise ValueError(
            f"The adapter in '{folder}' {what}, which does not fit this model ({len(surplus)} weights too "
            f"many, {len(missing)} too few): start from the base and the flags that it was trained with."
        )


def _refuse_other_settings(model: Any, folder: Path) -> None:
    try:
        theirs = json.loads((folder / ADAPTER_CONFIG).read_text())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"'{folder}' holds no {ADAPTER_CONFIG}; pass the folder of an adapter, ours or upstream's."
        ) from None
    ours = adapter_config(model)
    for field, flag in {"r": "lora_r", "lora_alpha": "lora_alpha", "bias": "lora_bias"}.items():
        if theirs.get(field) != ours[field]:
            raise ValueError(
                f"The adapter in '{folder}' was made with {field} {theirs.get(field)}, and this run asks for "
                f"{ours[field]}: pass --{flag} {theirs.get(field)}."
            )
    for field in ("use_rslora", "alpha_pattern"):
        if theirs.get(field):
            raise ValueError(
                f"The adapter in '{folder}' was made with {field} {theirs[field]}, another scale than "
                "alpha / r, which no flag asks for: merge it into its base, and start from that."
            )


def read_adapter(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """All weights of a LoRA folder, under the names of its files; {} for none."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for name in (OLD_ADAPTER_WEIGHTS, OTHER_WEIGHTS):
        if (Path(folder) / name).is_file():
            tensors |= torch.load(Path(folder) / name, map_location="cpu", weights_only=True)
    if (Path(folder) / ADAPTER_WEIGHTS).is_file():
        tensors |= load_file(Path(folder) / ADAPTER_WEIGHTS)
    return {published_name(name): tensor for name, tensor in current_state_dict(tensors).items()}
