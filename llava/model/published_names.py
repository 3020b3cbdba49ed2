"""Names in published checkpoints and names in current transformers, in both directions.

transformers 5 dropped the level `vision_model.` from `CLIPVisionModel` and three fields from `config.json`.
Readers of LLaVA and CLIP checkpoints elsewhere still look for them, so files are written with the old names
and read with either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

# A CLIP's or SigLIP's own modules (`pre_layrnorm` is how CLIP spells it), nested in a LLaVA or at the root.
_TOWER_KEY = re.compile(
    r"^(?P<prefix>(?:.*\bvision_tower\.)?)(?P<old>vision_model\.)?"
    r"(?P<rest>(?:embeddings|pre_layrnorm|encoder|post_layernorm|head)\..+)"
)


def published_state_dict(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename tower keys as published files have them: `...vision_tower.vision_model.encoder...`.

    Works for a whole LLaVA and for a bare `CLIPVisionModel`; keys that are published names already are kept.
    """
    return {
        _TOWER_KEY.sub(r"\g<prefix>vision_model.\g<rest>", key): value for key, value in state_dict.items()
    }


def current_state_dict(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename tower keys as current transformers has them: no level `vision_model.`. Accepts both."""
    return {_TOWER_KEY.sub(r"\g<prefix>\g<rest>", key): value for key, value in state_dict.items()}


def published_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Add the fields that readers before transformers 5 know beside the new ones, in nested configs too.

    `rope_parameters` -> `rope_theta` and `rope_scaling` (None for plain rotary embeddings); `dtype` ->
    `torch_dtype`.
    """
    out = {key: published_config(value) if _is_nested(key, value) else value for key, value in config.items()}
    rope = config.get("rope_parameters")
    if isinstance(rope, Mapping) and "rope_theta" in rope:
        scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "rope_type")}
        kind = rope.get("rope_type", "default")
        out["rope_theta"] = rope["rope_theta"]
        out["rope_scaling"] = None if kind == "default" else {"type": kind, **scaling}
    if config.get("dtype") is not None:
        out["torch_dtype"] = config["dtype"]
    return out


def _is_nested(key: str, value: Any) -> bool:
    return key.endswith("_config") and isinstance(value, Mapping)
