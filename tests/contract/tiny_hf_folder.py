"""A LLaVA of random weights in transformers' own format, processor and chat template included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CHAT = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
SIDE, PATCH, WIDTH = 28, 14, 32


GRID = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]


def make_hf_folder(tiny: Any, path: Path, *, anyres: bool = False) -> Path:
    """LLaVA, or LLaVA-NeXT."""
    import transformers
    from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig

    family = "LlavaNext" if anyres else "Llava"
    grid = {"image_grid_pinpoints": GRID} if anyres else {}
    tokenizer = AutoTokenizer.from_pretrained(tiny.llama)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"], "pad_token": "<unk>"})
    pictures = getattr(transformers, "LlavaNextImageProcessor" if anyres else "CLIPImageProcessor")(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, do_convert_rgb=True, **grid
    )
    processor = getattr(transformers, f"{family}Processor")(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    shape = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForConditionalGeneration")(
        getattr(transformers, f"{family}Config")(
            vision_config=CLIPVisionConfig(**shape, image_size=SIDE, patch_size=PATCH),
            text_config=LlamaConfig(
                **shape, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0
            ),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_select_strategy="default",
            **grid,
        )
    )
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path
