"""Somebody's training script, which knows nothing of ReGap: a tiny LLaVA learns captions in stage 1's way.

python playground/examples/training_script.py OUTPUT_FOLDER
"""

import sys

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

IMAGE, PATCHES = 3, 16
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def tiny_llava() -> nn.Module:
    """Random weights; only the projector trains."""
    torch.manual_seed(0)
    tower = CLIPVisionConfig(**SIZES, image_size=56, patch_size=14)
    language = LlamaConfig(**SIZES, vocab_size=64)
    config = LlavaConfig(
        vision_config=tower, text_config=language, image_token_index=IMAGE, image_seq_length=PATCHES
    )
    model = LlavaForConditionalGeneration(config).requires_grad_(False)
    for parameter in model.model.multi_modal_projector.parameters():
        parameter.requires_grad_(True).data.mul_(20)  # image rows start far from the words, as in LLaVA
    return model


def captioned_images(count: int = 64) -> list[dict[str, Tensor]]:
    """An image each, then eight words about it; only the words are supervised."""
    words = torch.randint(IMAGE + 1, 64, (count, 8))
    ids = torch.cat([torch.full((count, PATCHES), IMAGE), words], 1)
    labels, pixels = ids.masked_fill(ids == IMAGE, -100), torch.randn(count, 3, 56, 56)
    columns = zip(ids, labels, pixels, strict=True)
    return [dict(zip(("input_ids", "labels", "pixel_values"), row, strict=True)) for row in columns]


def make_trainer(output_path: str) -> Trainer:
    """Stage 1: 40 steps, of which 5 warm up."""
    schedule = {"max_steps": 40, "warmup_steps": 5, "learning_rate": 1e-2, "logging_steps": 1}
    where = {"output_dir": output_path, "save_strategy": "no", "report_to": "none", "use_cpu": True}
    arguments = TrainingArguments(**schedule, **where, per_device_train_batch_size=8, disable_tqdm=True)
    return Trainer(tiny_llava(), arguments, train_dataset=captioned_images())


if __name__ == "__main__":
    trainer = make_trainer(sys.argv[1])
    trainer.train()
    trainer.save_state()
