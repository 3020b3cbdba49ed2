"""Which vision tower a configuration asks for."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from llava.model.checkpoint_files import find_file, read_config

ENTRY_POINTS = "llava.vision_towers"
"""Group of entry points for other people's towers. Each loads to a class with `CLIPVisionTower`'s attributes
(`unfreeze` for those that may train) and a class method `accepts(name: str) -> bool`."""


def build_vision_tower(vision_tower_cfg: Any, **kwargs: Any) -> nn.Module:
    """Build the tower named by `mm_vision_tower` (or, from training arguments, `vision_tower`).

    Third parties' towers are asked first, so that one may take over a name. A folder's own configuration says
    whether it is a CLIP or a SigLIP; of hub names, those of a CLIP's publisher and those with "siglip" are
    taken. `s2` and `s2_scales` make a CLIP look at several scales.

    Args:
        vision_tower_cfg: model configuration or training arguments.
        kwargs: `delay_load=True` builds without weights.

    Raises:
        ValueError: nobody knows the name.
    """
    name = getattr(vision_tower_cfg, "mm_vision_tower", None) or getattr(
        vision_tower_cfg, "vision_tower", None
    )
    if name is None:
        raise ValueError(
            "A vision tower was asked for but none is named; pass --vision_tower with a folder or hub name."
        )
    for entry in entry_points(group=ENTRY_POINTS):
        tower = entry.load()
        if tower.accepts(name):
            return tower(name, args=vision_tower_cfg, **kwargs)
    if _is_siglip(name):
        from llava.model.multimodal_encoder.siglip_encoder import SigLipVisionTower

        if getattr(vision_tower_cfg, "s2", False):
            raise ValueError(
                f"Features of several scales (s2) are for CLIP, and '{name}' is a SigLIP; leave s2 out."
            )
        return SigLipVisionTower(name, args=vision_tower_cfg, **kwargs)
    if os.path.exists(name) or name.startswith(("openai", "laion")) or "ShareGPT4V" in name:
        from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower, CLIPVisionTowerS2

        tower_class = CLIPVisionTowerS2 if getattr(vision_tower_cfg, "s2", False) else CLIPVisionTower
        return tower_class(name, args=vision_tower_cfg, **kwargs)
    raise ValueError(
        f"The vision tower '{name}' is neither a folder here nor a known CLIP or SigLIP on the hub "
        "(openai/..., laion/..., google/siglip...); check the path, or install a package that registers it "
        f"under the entry point '{ENTRY_POINTS}'."
    )


def _is_siglip(name: str) -> bool:
    """By the configuration of a folder, which may have any name, and by the name of what is on the hub."""
    if os.path.isdir(name) and find_file(name, "config.json"):
        return str(read_config(name).get("model_type", "")).startswith("siglip")
    return "siglip" in name.lower()
