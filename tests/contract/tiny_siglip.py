"""A SigLIP of random weights: the whole, as published ones are, or its vision half alone."""

from __future__ import annotations

import json
from pathlib import Path

VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 64,
}


def make_tiny_siglip(folder: Path, *, whole: bool) -> Path:
    """A folder for `--vision_tower`; its name says nothing. The vision half is the same either way."""
    import torch
    from transformers import SiglipConfig, SiglipModel, SiglipVisionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = SiglipModel(SiglipConfig(vision_config=VISION, text_config=TEXT))
    if not whole:
        vision = SiglipVisionModel(model.config.vision_config)
        vision.load_state_dict(model.vision_model.state_dict())
        model = vision
    model.save_pretrained(folder)
    processor = {
        "image_processor_type": "SiglipImageProcessor",
        "do_resize": True,
        "size": {"height": 56, "width": 56},
        "resample": 3,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
