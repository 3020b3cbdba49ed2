"""Which parameters share a weight decay and a learning rate."""

from __future__ import annotations

from typing import Any

from torch import nn


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")


def optimizer_groups(
    model: nn.Module,
    weight_decay: float,
    projector_lr: float | None = None,
    tower_lr: float | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups of LLaVA: decayed or not, and projector and tower apart where they have a rate.

    Biases and normalisation layers do not decay. Only parameters that require grad are taken.

    Args:
        model: a LLaVA, not wrapped.
        weight_decay: of the decayed groups.
        projector_lr: the projector's own learning rate; it follows the same schedule. 0 counts as given.
        tower_lr: the same of the vision tower.

    Returns:
        Groups in the order rest, projector, tower, of each what decays first; empty ones are left out.
    """
    rates = {"mm_projector": projector_lr, "vision_tower": tower_lr}
    rates = {part: rate for part, rate in rates.items() if rate is not None}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {
        (part, exempt): [] for part in ("", *rates) for exempt in (False, True)
    }
    exempt_ids = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if _is_norm(module) or "bias" in name
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = next((part for part in rates if part in name), "")
            groups[part, id(parameter) in exempt_ids].append(parameter)
    return [
        {"params": parameters, "weight_decay": 0.0 if exempt else weight_decay}
        | ({"lr": rates[part]} if part else {})
        for (part, exempt), parameters in groups.items()
        if parameters
    ]
