"""A Mistral of random weights with the tiny LLaMA's tokenizer, as a folder that old and new readers take."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

ROPE_THETA = 1e6
"""Not what readers assume where a file does not say."""


def make_tiny_mistral(folder: Path, llama: Path, **changed: Any) -> Path:
    """Two layers of width 64, two of four heads with keys of their own; `changed` goes into the config."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from llava.model.published_names import published_config

    vocabulary = json.loads((llama / "config.json").read_text())["vocab_size"]
    described = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 176,
        "max_position_embeddings": 2048,
        "rope_theta": ROPE_THETA,
        "sliding_window": None,
    } | changed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = MistralForCausalLM(MistralConfig(**described, initializer_range=0.1))
    model.save_pretrained(folder)
    config = published_config(json.loads((folder / "config.json").read_text()))
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(llama / name, folder / name)
    return folder
