"""Somebody's training script for transformers' own LLaVA: a plain Trainer, which knows nothing of the patch.

    python hf_training.py OUTPUT_DIR MAX_STEPS SAVE_STEPS

The same command again goes on from the last checkpoint.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

IMAGE, PATCHES, WIDTH = 60, 4, 32
SHAPE = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


class Captions(torch.utils.data.Dataset):
    """Random pictures, each with a random caption of one to eight words."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        draw = torch.Generator().manual_seed(index)
        words = torch.randint(3, IMAGE, (1 + index % 8,), generator=draw)
        return {"pixels": torch.randn(3, 28, 28, generator=draw), "words": words}


def collate(samples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    prompt = [1, *[IMAGE] * PATCHES]
    longest = len(prompt) + max(len(sample["words"]) for sample in samples)
    ids, labels, mask = (torch.full((len(samples), longest), fill) for fill in (0, -100, 0))
    for row, sample in enumerate(samples):
        end = len(prompt) + len(sample["words"])
        ids[row, :end] = torch.cat([torch.tensor(prompt), sample["words"]])
        labels[row, len(prompt) : end] = sample["words"]
        mask[row, :end] = 1
    pixels = torch.stack([sample["pixels"] for sample in samples])
    return {"input_ids": ids, "labels": labels, "attention_mask": mask, "pixel_values": pixels}


def tiny_llava(checkpoint: str | None) -> LlavaForConditionalGeneration:
    """Random weights, or those of a checkpoint; only the projector trains.

    The Trainer of transformers 5 cannot load them itself: it saves LLaVA under its published names, looks for
    the names in memory, finds none and goes on with what it has.
    """
    if checkpoint is not None:
        model = LlavaForConditionalGeneration.from_pretrained(checkpoint)
    else:
        config = LlavaConfig(
            text_config=LlamaConfig(vocab_size=64, pad_token_id=0, **SHAPE),
            vision_config=CLIPVisionConfig(image_size=28, patch_size=14, projection_dim=WIDTH, **SHAPE),
            image_token_index=IMAGE,
        )
        model = LlavaForConditionalGeneration(config)
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    return model


def main(output_dir: str, max_steps: str, save_steps: str) -> None:
    set_seed(0)
    last = get_last_checkpoint(output_dir) if Path(output_dir).is_dir() else None
    trainer = Trainer(
        model=tiny_llava(last),
        args=TrainingArguments(
            output_dir,
            max_steps=int(max_steps),
            save_steps=int(save_steps),
            save_strategy="steps",
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            learning_rate=5e-3,
            logging_steps=1,
            remove_unused_columns=False,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=Captions(),
        data_collator=collate,
    )
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model()
    trainer.save_state()


if __name__ == "__main__":
    main(*sys.argv[1:])
