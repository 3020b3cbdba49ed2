"""Which vision tower a configuration asks for."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from typing import Any

from torch import nn

ENTRY_POINTS = "llava.vision_towers"
"""Group of entry points for other people's towers. Each loads to a class with `CLIPVisionTower`'s attributes
and a class method `accepts(name: str) -> bool`."""


def build_vision_tower(vision_tower_cfg: Any, **kwargs: Any) -> nn.Module:
    """Build the tower named by `mm_vision_tower` (or, from training arguments, `vision_tower`).

    Third parties' towers are asked first, so that one may take over a name. CLIP takes a folder that exists
    or a hub name of a CLIP publisher.

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
    if os.path.exists(name) or name.startswith(("openai", "laion")) or "ShareGPT4V" in name:
        if getattr(vision_tower_cfg, "s2", False):
            raise ValueError(
                f"The configuration asks for multi-scale (s2) features of '{name}', which we do not have."
            )
        from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower

        return CLIPVisionTower(name, args=vision_tower_cfg, **kwargs)
    raise ValueError(
        f"The vision tower '{name}' is neither a folder here nor a known CLIP on the hub (openai/..., "
        "laion/...); check the path, or install a package that registers it under the entry point "
        f"'{ENTRY_POINTS}'."
    )
