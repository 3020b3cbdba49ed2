"""Give a model what a LoRA run trained: merged into its weights, or beside them where they are quantised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from llava.model.lora_adapter import Factors, LoraAdapter, needs_peft, read_lora_adapter
from llava.model.trained_weights import load_trained_weights


class LowRankBeside(nn.Module):
    """`x -> scale * up(down(x))`, for a layer whose own weight has too few bits to take the change in."""

    def __init__(self, factors: Factors, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.scale = factors.scale
        self.down = nn.Parameter(factors.down.to(device, dtype), requires_grad=False)
        self.up = nn.Parameter(factors.up.to(device, dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return functional.linear(functional.linear(x.to(self.down.dtype), self.down), self.up) * self.scale


def apply_lora(model: Any, path: str, base: str) -> Any:
    """Put the adapter of a LoRA folder into its base model.

    The rounding is that of peft 0.10, with which upstream merges: factors to the weight's dtype, their
    product in float32, the sum in the weight's dtype. Quantised layers keep their weight and add what the
    factors make of their input: that is what QLoRA trained, and merging would round it away. Adapters of
    other mathematics (DoRA, ...) are merged by peft.

    Args:
        model: the base, loaded; changed in place.
        path: the LoRA folder, or hub name.
        base: what the base is called, for errors.

    Returns:
        The model.

    Raises:
        FileNotFoundError: the adapter's weights are missing.
        ImportError: an adapter that only peft can merge, without peft.
        ValueError: the adapter belongs to another model.
    """
    special = needs_peft(path)
    if special is not None:
        return _merge_by_peft(model, path, special)
    adapter = read_lora_adapter(path)
    load_trained_weights(model, adapter.whole, path)
    targets = _targets(model, adapter, base)
    for name, factors in adapter.factors.items():
        _add(targets[name], factors, model.dtype)
    return model


def _targets(model: nn.Module, adapter: LoraAdapter, base: str) -> dict[str, nn.Module]:
    """The module of each pair of factors; nothing is changed before all are known to fit."""
    modules = dict(model.named_modules())
    missing = sorted(adapter.factors.keys() - modules.keys())
    if missing:
        raise ValueError(
            f"The LoRA adapter in '{adapter.path}' was trained on another model than '{base}': it changes "
            f"{len(missing)} modules that are not there ({', '.join(missing[:3])}); pass the right "
            "--model-base."
        )
    for name, factors in adapter.factors.items():
        wanted, found = (factors.up.shape[0], factors.down.shape[1]), _widths(modules[name])
        if found != (wanted[::-1] if factors.of_embedding else wanted):
            raise ValueError(
                f"The LoRA adapter in '{adapter.path}' was trained on another model than '{base}': its "
                f"change of {name} is {wanted[0]} x {wanted[1]}, where the model has "
                f"{'no matrix' if found is None else ' x '.join(map(str, found))}; pass the right "
                "--model-base."
            )
        weight = getattr(modules[name], "weight", None)
        if weight is not None and weight.is_meta:
            raise ValueError(
                f"The base '{base}' does not fit into this machine's memory as a whole, and an adapter "
                "cannot be merged into weights on disk; merge it once with scripts/merge_lora_weights.py on "
                "a larger machine, or load in 4 bits."
            )
    return modules


def _widths(module: nn.Module) -> tuple[int, int] | None:
    """Rows and columns of a weight, also of one that is packed into fewer bits."""
    if hasattr(module, "in_features"):
        return int(module.out_features), int(module.in_features)
    if hasattr(module, "num_embeddings"):
        return int(module.num_embeddings), int(module.embedding_dim)
    return None


@torch.no_grad()
def _add(module: nn.Module, factors: Factors, dtype: torch.dtype) -> None:
    weight = getattr(module, "weight", None)
    if weight is None or not weight.is_floating_point():
        device = weight.device if weight is not None else next(module.buffers()).device
        module.lora = LowRankBeside(factors, dtype, device)
        module.register_forward_hook(_add_change)
        return
    down, up = (factor.to(weight.device, weight.dtype).float() for factor in (factors.down, factors.up))
    change = (up @ down * factors.scale).to(weight.dtype)
    weight += change.T if factors.of_embedding else change


def _add_change(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + module.lora(inputs[0]).to(output.dtype)


def _merge_by_peft(model: Any, path: str, special: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ImportError(
            f"The adapter in '{path}' is of a kind that only peft can merge ({special}); install peft."
        ) from error
    return PeftModel.from_pretrained(model, path).merge_and_unload()


def read_trained_file(path: str) -> Mapping[str, Tensor]:
    """`non_lora_trainables.bin`: what a LoRA run trained beside its adapter, under the model's own names.

    Raises:
        ValueError: not a file of tensors.
    """
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        tensors = {key.removeprefix("base_model."): tensor for key, tensor in tensors.items()}
    except Exception as error:
        raise ValueError(
            f"'{path}' cannot be read as a torch file of tensors ({type(error).__name__}); copy the LoRA "
            "folder again."
        ) from error
    if any(key.startswith("model.model.") for key in tensors):  # peft's own level, above the causal model's
        tensors = {key.removeprefix("model."): tensor for key, tensor in tensors.items()}
    return tensors
