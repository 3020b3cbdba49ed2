"""A LoRA folder's tensors, under the names of the model that they belong to.

Upstream, peft and this package write the same: `base_model.model.` before the model's own names, the factors
as `<module>.lora_A.weight` and `<module>.lora_B.weight`, and what trained as a whole beside them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from llava.model.checkpoint_files import check_weight_file, find_file, iterate_tensors
from llava.model.layouts import read_adapter_config
from llava.model.published_names import current_state_dict

ADAPTER_WEIGHTS = "adapter_model.safetensors"
OLD_ADAPTER_WEIGHTS = "adapter_model.bin"
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?:embedding_)?(?P<factor>[AB])(?:\.default)?(?:\.weight)?")
# Wrappers that peft puts around a module whose whole weight trains, or whose bias does.
_WRAPPER = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)(?=\.)")
# Settings under which the change of a weight is more than B A: their own mathematics stays with peft.
_OTHER_MATHEMATICS = (
    "alora_invocation_tokens",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
)
# These start from a changed base weight; with the other starts the base is the published one.
_CHANGED_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")


class Factors(NamedTuple):
    """The change of one weight: `scale * up @ down`."""

    down: Tensor
    """(r, in)"""
    up: Tensor
    """(out, r)"""
    scale: float
    of_embedding: bool
    """The change is that of an embedding (out, in), whose own weight is (in, out)."""


@dataclass(frozen=True)
class LoraAdapter:
    """What a LoRA folder adds to its base."""

    path: str
    factors: Mapping[str, Factors] = field(default_factory=dict)
    """By module: `model.layers.0.self_attn.q_proj`."""
    whole: Mapping[str, Tensor] = field(default_factory=dict)
    """Parameters that trained as a whole (`modules_to_save`, biases), by name."""


def read_lora_adapter(path: str) -> LoraAdapter:
    """Read `adapter_config.json` and `adapter_model.safetensors` (or `.bin`).

    Args:
        path: folder or hub name.

    Raises:
        FileNotFoundError: one of the two is missing.
        ValueError: a torn file, or factors without their partner.
    """
    config = read_adapter_config(path)
    source = next(
        (found for name in (ADAPTER_WEIGHTS, OLD_ADAPTER_WEIGHTS) if (found := find_file(path, name))), None
    )
    if source is None:
        raise FileNotFoundError(
            f"'{path}' has an adapter_config.json and no {ADAPTER_WEIGHTS}; pass a folder whose saving was "
            "completed."
        )
    check_weight_file(source)
    halves: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    embeddings: set[str] = set()
    for key, tensor in current_state_dict(dict(iterate_tensors(source))).items():
        name = key.removeprefix("base_model.model.")
        found = _FACTOR.fullmatch(name)
        if found is None:
            whole[_WRAPPER.sub("", name)] = tensor
            continue
        module = _WRAPPER.sub("", f"{found['module']}.")[:-1]
        halves.setdefault(module, {})[found["factor"]] = tensor
        if "lora_embedding_" in name:
            embeddings.add(module)
    torn = sorted(module for module, pair in halves.items() if len(pair) != 2)
    if torn or not halves:
        what = f"only one of two factors for {torn[:3]}" if torn else "no LoRA factors at all"
        raise ValueError(f"The LoRA adapter '{source}' has {what}; pass the folder of a completed run.")
    factors = {
        module: Factors(
            pair["A"], pair["B"], scaling(module, len(pair["A"]), config), of_embedding=module in embeddings
        )
        for module, pair in halves.items()
    }
    return LoraAdapter(path, factors, whole)


def needs_peft(path: str) -> str | None:
    """The first setting of an adapter under which a weight changes by something else than B A; else None."""
    config = read_adapter_config(path)
    kind = str(config.get("peft_type", "LORA")).upper()
    if kind != "LORA":
        return f"peft_type={kind}"
    for name in _OTHER_MATHEMATICS:
        if config.get(name):
            return f"{name}={config[name]}"
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGED_STARTS):
        return f"init_lora_weights={start}"
    return None


def scaling(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """The factor of B A: alpha / r, or alpha / sqrt(r) if rank-stabilised.

    Args:
        module: name in the model.
        rank: of its factors, which `rank_pattern` may have set.
        config: `adapter_config.json`; its `alpha_pattern` may give a module an alpha of its own.
    """
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    own = (alpha for pattern, alpha in patterns.items() if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module))
    alpha = next(own, config.get("lora_alpha", 8))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
