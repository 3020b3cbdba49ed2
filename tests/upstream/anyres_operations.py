"""What both packages are asked about tiles and about several images in a row; see `operations.py`.

Sizes are [width, height], grids [columns, rows].
"""

from __future__ import annotations

from typing import Any

import torch

TILE = 56


def grids(*, sizes: list[list[int]], pinpoints: list[list[int]]) -> dict[str, list[list[int]]]:
    """The resolution that each size is given, and its grid, from the list and from its text."""
    from llava.mm_utils import get_anyres_image_grid_shape, select_best_resolution

    return {
        "best": [list(select_best_resolution(tuple(size), pinpoints)) for size in sizes],
        "grid": [list(get_anyres_image_grid_shape(tuple(size), pinpoints, TILE)) for size in sizes],
        "grid_by_text": [
            list(get_anyres_image_grid_shape(tuple(size), str(pinpoints), TILE)) for size in sizes[:100]
        ],
    }


def kept_parts(*, sizes: list[list[int]], planes: list[list[int]]) -> list[list[int]]:
    """Of a plane of numbered cells, what is left without padding: rows, columns, first cell, last cell."""
    from llava.model.llava_arch import unpad_image

    kept = []
    for size, (columns, rows) in zip(sizes, planes, strict=True):
        plane = unpad_image(torch.arange(rows * columns).view(1, rows, columns), tuple(size))
        ends = [int(plane.flatten()[at]) for at in (0, -1)] if plane.numel() else [-1, -1]
        kept.append([plane.shape[1], plane.shape[2], *ends])
    return kept


def pixels(*, files: list[str], clip: str, pinpoints: list[list[int]]) -> list[torch.Tensor]:
    """Each picture in tiles (tiles, 3, H, W), and at last the first one by itself, as a stack."""
    from types import SimpleNamespace

    from transformers import CLIPImageProcessor

    from llava.mm_utils import process_images

    config = SimpleNamespace(image_aspect_ratio="anyres", image_grid_pinpoints=pinpoints)
    processor = CLIPImageProcessor.from_pretrained(clip)
    made = process_images(_open(files), processor, config)
    return [image.clone() for image in made] + [process_images(_open(files[:1]), processor, config).clone()]


def merged(
    *, as_stack: bool = False, padding_side: str = "right", num_tokens: int = 0, **asked: Any
) -> dict[str, torch.Tensor]:
    """What a checkpoint makes of a padded batch of rows with any number of images.

    Args:
        as_stack: images as one tensor, not as a list.
        padding_side: of the configuration.
        num_tokens: generate so many, and no more than what stands in front of them.
        asked: of `_batch`.

    Returns:
        `embeds (B, T, D)`, zero at padding, `labels`, `mask`, `logits` at the real positions, the `newline`
        and the `tokens` generated.
    """
    model, ids, mask, pictures, images = _batch(**asked)
    model.config.tokenizer_padding_side = padding_side
    shown = {
        "images": torch.stack(images) if as_stack else images,
        "image_sizes": [picture.size for picture in pictures],
    }
    with torch.inference_mode():
        _, positions, spliced, _, embeds, labels = model.prepare_inputs_labels_for_multimodal(
            ids, torch.arange(ids.shape[1]).expand(len(ids), -1), mask, None, ids.clone(), **shown
        )
        logits = model(inputs_embeds=embeds, attention_mask=spliced, position_ids=positions).logits
        lengths = {"max_new_tokens": num_tokens, "min_new_tokens": num_tokens, "do_sample": False}
        tokens = model.generate(ids, attention_mask=mask, **shown, **lengths) if num_tokens else ids[:, :0]
    newline = getattr(model.get_model(), "image_newline", torch.empty(0))
    return {
        "embeds": embeds.clone(),
        "labels": labels.clone(),
        "mask": spliced.clone(),
        "logits": logits[spliced].clone(),
        "newline": newline.detach().clone(),
        # transformers 4.37 puts a BOS before what it generates from embeddings
        "tokens": tokens[:, tokens.shape[1] - num_tokens :].clone(),
    }


def _batch(
    *,
    model_path: str,
    model_base: str | None,
    rows: list[dict[str, Any]],
    merge_type: str,
    aspect_ratio: str = "anyres",
) -> tuple[Any, torch.Tensor, torch.Tensor, list[Any], list[torch.Tensor]]:
    """A checkpoint in float32, and a batch for it.

    Args:
        model_path: of a checkpoint whose configuration has pinpoints.
        model_base: the language model under a stage 1.
        rows: `ids` with -200 for each image, and `files`; rows without images have one file, their dummy.
        merge_type: how tiles join.
        aspect_ratio: how pictures are prepared.

    Returns:
        The model, ids and mask (B, L), pictures, and their pixels.
    """
    from llava.mm_utils import get_model_name_from_path, process_images
    from llava.model.builder import load_pretrained_model

    _, model, processor, _ = load_pretrained_model(
        model_path, model_base, get_model_name_from_path(model_path), device="cpu"
    )
    model = model.half().float().eval()
    model.config.mm_patch_merge_type, model.config.image_aspect_ratio = merge_type, aspect_ratio
    pictures = [picture for row in rows for picture in _open(row["files"])]
    images = [process_images([picture], processor, model.config)[0].float() for picture in pictures]
    longest = max(len(row["ids"]) for row in rows)
    ids = torch.tensor([row["ids"] + [0] * (longest - len(row["ids"])) for row in rows])
    mask = torch.tensor([[True] * len(row["ids"]) + [False] * (longest - len(row["ids"])) for row in rows])
    return model, ids, mask, pictures, images


def _open(files: list[str]) -> list[Any]:
    from PIL import Image

    return [Image.open(file).convert("RGB") for file in files]
