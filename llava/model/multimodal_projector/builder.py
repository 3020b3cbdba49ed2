"""The connector between vision tower and language model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_MLP = re.compile(r"mlp([1-9]\d*)x_gelu(_ln)?")


class IdentityMap(nn.Module):
    """Hands the patch features on as they are."""

    config: dict[str, str] = {"mm_projector_type": "identity"}  # noqa: RUF012 - upstream's attribute

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: D102
        return x


class ProjectorShape(NamedTuple):
    """What a projector's tensors say about it."""

    kind: str
    """`linear`, `mlpNx_gelu`, `mlpNx_gelu_ln` or `identity`."""
    vision_width: int | None
    lm_width: int | None

    def __str__(self) -> str:
        widths = "" if self.lm_width is None else f" from width {self.vision_width} to {self.lm_width}"
        return self.kind + widths


def build_vision_projector(config: Any, delay_load: bool = False, **kwargs: Any) -> nn.Module:
    """Build the projector that `config` asks for: (B, P, Dv) -> (B, P, D).

    State-dict keys are those of published files: `weight`, `bias` for `linear`; `0.*`, `2.*`, ... for
    `mlpNx_gelu`; `mlpNx_gelu_ln`, which published code does not know, ends in a LayerNorm.

    Args:
        config: has `mm_hidden_size` (Dv) and `hidden_size` (D); `mm_projector_type` is `linear` when absent.
        delay_load: accepted for callers of upstream's signature.
        kwargs: the same.

    Raises:
        ValueError: unknown type.
    """
    kind = getattr(config, "mm_projector_type", "linear")
    if kind == "identity":
        return IdentityMap()
    if kind == "linear":
        return nn.Linear(config.mm_hidden_size, config.hidden_size)
    match = _MLP.fullmatch(kind)
    if match is None:
        raise ValueError(
            f"The projector type '{kind}' is unknown; pass --mm_projector_type linear, mlp2x_gelu (any "
            "depth: mlp3x_gelu ...; with a LayerNorm behind: mlp2x_gelu_ln) or identity."
        )
    layers: list[nn.Module] = [nn.Linear(config.mm_hidden_size, config.hidden_size)]
    for _ in range(int(match[1]) - 1):
        layers += [nn.GELU(), nn.Linear(config.hidden_size, config.hidden_size)]
    if match[2]:
        layers.append(nn.LayerNorm(config.hidden_size))
    return nn.Sequential(*layers)


def projector_shape(state_dict: Mapping[str, Tensor]) -> ProjectorShape:
    """Read type and widths off a projector's own keys (`weight`, `0.weight`, ...); none means `identity`.

    Raises:
        ValueError: keys that no projector of ours has.
    """
    if not state_dict:
        return ProjectorShape("identity", None, None)
    if "weight" in state_dict:
        lm_width, vision_width = _shape(state_dict["weight"])
        return ProjectorShape("linear", vision_width, lm_width)
    depths = sorted(int(key.split(".")[0]) for key in state_dict if re.fullmatch(r"\d+\.weight", key))
    normed = len(depths) > 1 and depths[-1] - depths[-2] == 1  # a LayerNorm stands right behind a linear map
    if normed:
        depths.pop()
    if not depths or depths != list(range(0, 2 * len(depths), 2)):
        raise ValueError(
            f"No projector type has the keys {sorted(state_dict)}; expected `weight` and `bias` (linear) or "
            "`0.weight`, `2.weight`, ... (mlpNx_gelu)."
        )
    vision_width = _shape(state_dict["0.weight"])[1]
    lm_width = _shape(state_dict[f"{depths[-1]}.weight"])[0]
    return ProjectorShape(f"mlp{len(depths)}x_gelu{'_ln' * normed}", vision_width, lm_width)


def _shape(weight: Tensor) -> torch.Size:
    """The whole shape, also of a parameter that ZeRO-3 has partitioned."""
    return getattr(weight, "ds_shape", weight.shape)
