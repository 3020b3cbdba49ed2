"""A tiny model of random weights for each host, its batches, and the image rows that its language model sees.

The rows are worked out one image at a time, from the model's own parts. Nothing of `regap_patch` is used. The
file runs under transformers 5 and, in upstream's environment, under 4.37.2. Axes: P image tokens, D width of
the language model; `build_` takes the tiny assets, `collate_` samples and a seed, `_rows` a model, a batch
and the number of an image, and gives (P, D).
"""

from __future__ import annotations

from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.contract.host_samples import (
    BOS,
    EOS,
    IMAGE,
    IMG,
    PAD,
    VOCABULARY,
    Samples,
    images_in,
    padded,
    pixels,
)

OLD = version("transformers").startswith("4.")
LLAVA_IMAGE = -200
SIDE, PATCH, WIDTH = 28, 14, 32
P = (SIDE // PATCH) ** 2
QUERIES = 3
SHAPE = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
# ---- LLaVA, ours or upstream's: whichever package `llava` is installed


def build_llava(tiny: Any) -> Any:
    from llava.model import LlavaConfig, LlavaLlamaForCausalLM

    torch.manual_seed(0)
    model = LlavaLlamaForCausalLM(LlavaConfig.from_pretrained(str(tiny.llama)))
    chosen = {
        "vision_tower": str(tiny.clip),
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "flat",
        "pretrain_mm_mlp_adapter": None,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "tune_mm_mlp_adapter": False,
    }
    model.get_model().initialize_vision_modules(SimpleNamespace(**chosen))
    model.config.mm_use_im_patch_token = model.config.mm_use_im_start_end = False
    return model


def collate_llava(samples: Samples, seed: int) -> dict[str, Tensor]:
    data = padded(samples, lambda number: [LLAVA_IMAGE])
    data["attention_mask"] = data["attention_mask"].bool()
    slots = sum(max(prompt.count(IMG), 1) for prompt, _ in samples)
    return {**data, "images": pixels(slots, 3, 56, 56, seed=seed)}


def llava_rows(model: Any, data: dict[str, Tensor], number: int) -> Tensor:
    return model.encode_images(data["images"][number][None])[0]


# ---- transformers' LLaVA and LLaVA-NeXT


def llava_configs() -> dict[str, Any]:
    from transformers import CLIPVisionConfig, LlamaConfig

    return {
        "vision_config": CLIPVisionConfig(**SHAPE, image_size=SIDE, patch_size=PATCH),
        "text_config": LlamaConfig(
            **SHAPE, vocab_size=VOCABULARY, bos_token_id=BOS, eos_token_id=EOS, max_position_embeddings=256
        ),
        "image_token_index": IMAGE,
    }


def build_hf_llava(tiny: Any) -> Any:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    extra = {"vocab_size": VOCABULARY} if OLD else {}
    return LlavaForConditionalGeneration(LlavaConfig(**llava_configs(), **extra))


def collate_hf_llava(samples: Samples, seed: int) -> dict[str, Tensor]:
    """On 4.37 the model makes room for the image, on 5 the processor does."""
    data = padded(samples, lambda number: [IMAGE] * (1 if OLD else P))
    count = images_in(samples)
    return {**data, "pixel_values": pixels(count, 3, SIDE, SIDE, seed=seed)} if count else data


def hf_llava_rows(model: Any, data: dict[str, Tensor], number: int) -> Tensor:
    parts = model if OLD else model.model
    hidden = parts.vision_tower(data["pixel_values"][number][None], output_hidden_states=True).hidden_states
    return parts.multi_modal_projector(hidden[-2][:, 1:])[0]


RESOLUTIONS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
SIZES = [(30, 70), (56, 56), (80, 20), (41, 57), (28, 28)]  # of the images in turn


def build_llava_next(tiny: Any) -> Any:
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

    torch.manual_seed(0)
    config = LlavaNextConfig(**llava_configs(), image_grid_pinpoints=RESOLUTIONS)
    return LlavaNextForConditionalGeneration(config)


def collate_llava_next(samples: Samples, seed: int) -> dict[str, Tensor]:
    """Tiles are padded to the largest image's, as the processor leaves them; transformers counts them."""
    from transformers.models.llava_next import modeling_llava_next as peer

    def tokens(number: int) -> int:
        high, wide = peer.get_anyres_image_grid_shape(SIZES[number], RESOLUTIONS, SIDE)
        grid = torch.zeros(1, high * SIDE // PATCH, wide * SIDE // PATCH)
        _, kept_high, kept_wide = peer.unpad_image(grid, SIZES[number]).shape
        return P + kept_high * (kept_wide + 1)

    data = padded(samples, lambda number: [IMAGE] * tokens(number))
    count = images_in(samples)
    if not count:
        return data
    tiles = [peer.image_size_to_num_patches(SIZES[number], RESOLUTIONS, SIDE) for number in range(count)]
    values = pixels(count, max(tiles), 3, SIDE, SIDE, seed=seed)
    for number, used in enumerate(tiles):
        values[number, used:] = 0
    return {**data, "pixel_values": values, "image_sizes": torch.tensor(SIZES[:count])}


def llava_next_rows(model: Any, data: dict[str, Tensor], number: int) -> Tensor:
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    size = data["image_sizes"][number]
    tiles = data["pixel_values"][number][: image_size_to_num_patches(size, RESOLUTIONS, SIDE)]
    hidden = model.model.vision_tower(tiles, output_hidden_states=True).hidden_states[-2][:, 1:]
    features = model.model.multi_modal_projector(hidden)
    packed, _ = model.model.pack_image_features([features], size[None], "default", image_newline=None)
    return packed[0]


# ---- BLIP-2 and InstructBLIP, with OPT


def build_blip(tiny: Any, *, instruct: bool = False) -> Any:
    import transformers
    from transformers import OPTConfig

    family = "InstructBlip" if instruct else "Blip2"
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    text = OPTConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, word_embed_proj_dim=WIDTH, ffn_dim=48, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=256, dropout=0.0, bos_token_id=BOS, eos_token_id=EOS,
        pad_token_id=PAD,
    )  # fmt: skip
    configs = {
        "vision_config": getattr(transformers, f"{family}VisionConfig")(
            **SHAPE, image_size=SIDE, patch_size=PATCH
        ),
        "qformer_config": getattr(transformers, f"{family}QFormerConfig")(
            **SHAPE, vocab_size=VOCABULARY, encoder_hidden_size=WIDTH, **still
        ),
        "text_config": text,
    }
    if OLD:
        configs = {name: config.to_dict() for name, config in configs.items()}
    placeholder = {} if OLD else {"image_token_index": IMAGE}
    config = getattr(transformers, f"{family}Config")(**configs, num_query_tokens=QUERIES, **placeholder)
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    torch.nn.init.normal_(model.query_tokens)  # made as zeros, which would make all queries one
    return model


def build_instruct_blip(tiny: Any) -> Any:
    return build_blip(tiny, instruct=True)


def collate_blip(samples: Samples, seed: int) -> dict[str, Tensor]:
    """An image is always needed. On 4.37 it stands before the text and has no placeholder."""
    data = padded(samples, lambda number: [] if OLD else [IMAGE] * QUERIES)
    count = len(samples) if OLD else max(images_in(samples), 1)
    return {"pixel_values": pixels(count, 3, SIDE, SIDE, seed=seed), **data}


def collate_instruct_blip(samples: Samples, seed: int) -> dict[str, Tensor]:
    data = collate_blip(samples, seed)
    count = len(data["pixel_values"])
    return {**data, "qformer_input_ids": torch.arange(10, 10 + 4 * count).reshape(count, 4)}


def blip_rows(model: Any, data: dict[str, Tensor], number: int) -> Tensor:
    seen = model.vision_model(data["pixel_values"][number][None])[0]
    asked = {}
    if "qformer_input_ids" in data:
        words = data["qformer_input_ids"][number][None]
        mask = torch.ones(1, QUERIES + words.shape[1], dtype=torch.long)
        asked = {"input_ids": words, "attention_mask": mask}
    told = model.qformer(query_embeds=model.query_tokens.to(seen.dtype), encoder_hidden_states=seen, **asked)[
        0
    ]
    return model.language_projection(told[:, :QUERIES].to(model.language_projection.weight.dtype))[0]
