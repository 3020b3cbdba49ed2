"""Tiny models with the file formats of the real ones: a LLaMA and a CLIP vision tower, random or trained.

The folders hold the names of published checkpoints (`vision_model.` in the tower's keys, `rope_theta` and
`torch_dtype` in the config), so transformers 4.37 and 5 both load them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .tokens import TOKENIZER_FILES, train_tokenizer

if TYPE_CHECKING:
    from transformers import CLIPVisionModel, LlamaForCausalLM

__all__ = ["make_tiny_clip", "make_tiny_llama", "save_clip", "save_llama", "train_tokenizer"]

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def _save(model: Any, output_path: Path) -> None:
    """Weights and config under published names; the config last, for a folder without one does not load."""
    from safetensors.torch import save_file

    from llava.model.published_names import published_config, published_state_dict

    output_path.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in published_state_dict(model.state_dict()).items()}
    save_file(weights, output_path / "model.safetensors", metadata={"format": "pt"})
    described = model.config.to_dict() | {"architectures": [type(model).__name__], "dtype": "float32"}
    config = {key: value for key, value in published_config(described).items() if key != "_name_or_path"}
    (output_path / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))


def save_llama(model: LlamaForCausalLM, output_path: str | Path, tokenizer_path: str | Path) -> Path:
    """Save a language model with its tokenizer, as a folder that `--model_name_or_path` takes."""
    output_path = Path(output_path)
    output_path.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(Path(tokenizer_path) / name, output_path / name)
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (output_path / "generation_config.json").write_text(json.dumps(generation, indent=2))
    _save(model, output_path)
    return output_path


def save_clip(model: CLIPVisionModel, output_path: str | Path) -> Path:
    """Save a vision tower with its preprocessing, as a folder that `--vision_tower` takes."""
    output_path = Path(output_path)
    output_path.mkdir(parents=True, exist_ok=True)
    side = model.config.image_size
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "feature_extractor_type": "CLIPFeatureExtractor",
        "crop_size": {"height": side, "width": side},
        "size": {"shortest_edge": side},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "resample": 3,
        "rescale_factor": 1 / 255,
    }
    (output_path / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2))
    _save(model, output_path)
    return output_path


def new_llama(
    vocab_size: int,
    *,
    hidden_size: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
    intermediate_size: int | None = None,
    max_positions: int = 2048,
    initializer_range: float = 0.02,
) -> LlamaForCausalLM:
    """A LLaMA with random float32 weights, drawn from torch's global generator.

    `intermediate_size` None is 8/3 of `hidden_size`, LLaMA's own proportion, rounded up to a multiple of 16.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        intermediate_size=intermediate_size or -(-hidden_size * 8 // 48) * 16,
        max_position_embeddings=max_positions,
        initializer_range=initializer_range,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def new_clip(image_size: int, patch_size: int, hidden_size: int, num_layers: int) -> CLIPVisionModel:
    """A CLIP vision tower with random float32 weights, drawn from torch's global generator."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=max(1, hidden_size // 16),
        image_size=image_size,
        patch_size=patch_size,
        projection_dim=hidden_size,
    )
    return CLIPVisionModel(config)


def vocabulary_size(tokenizer_path: str | Path) -> int:
    """Number of pieces of the tokenizer in a folder."""
    import sentencepiece

    model_file = Path(tokenizer_path) / "tokenizer.model"
    return sentencepiece.SentencePieceProcessor(model_file=str(model_file)).vocab_size()


def make_tiny_llama(
    output_path: str | Path,
    tokenizer_path: str | Path,
    *,
    hidden_size: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
    intermediate_size: int | None = None,
    max_positions: int = 2048,
    seed: int = 0,
) -> Path:
    """A LLaMA with random weights and the tokenizer of `tokenizer_path`, as a folder; float32."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_llama(
            vocabulary_size(tokenizer_path),
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            intermediate_size=intermediate_size,
            max_positions=max_positions,
        )
    return save_llama(model, output_path, tokenizer_path)


def make_tiny_clip(
    output_path: str | Path,
    *,
    image_size: int = 56,
    patch_size: int = 14,
    hidden_size: int = 64,
    num_layers: int = 3,
    seed: int = 0,
) -> Path:
    """A CLIP vision tower with random weights, as a folder; float32. P = (image_size / patch_size)^2."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_clip(image_size, patch_size, hidden_size, num_layers)
    return save_clip(model, output_path)
