"""Between pictures, prompts and tensors: what every script around a LLaVA calls."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llava.constants import (
    DEFAULT_IM_END_TOKEN,
    DEFAULT_IM_START_TOKEN,
    DEFAULT_IMAGE_TOKEN,
    IMAGE_PLACEHOLDER,
    IMAGE_TOKEN_INDEX,
)
from llava.model.anyres import get_anyres_image_grid_shape, select_best_resolution, wants_tiles
from llava.tiles import divide_to_patches, process_anyres_image, resize_and_pad_image
from llava.tokenization import ids_around_images, text_to_ids

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "KeywordsStoppingCriteria",
    "divide_to_patches",
    "expand2square",
    "get_anyres_image_grid_shape",
    "get_model_name_from_path",
    "load_image",
    "load_image_from_base64",
    "place_images",
    "process_anyres_image",
    "process_images",
    "resize_and_pad_image",
    "select_best_resolution",
    "tokenizer_image_token",
]


def load_image(source: str) -> Image:
    """RGB picture from a file or an http(s) address.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture.
    """
    from PIL import Image as pil

    try:
        if source.startswith(("http://", "https://")):
            from urllib.request import urlopen

            with urlopen(source, timeout=30) as response:
                file: Any = BytesIO(response.read())
        else:
            file = source
        return pil.open(file).convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"The picture '{source}' does not exist; check --image-file.") from None
    except Exception as error:  # Pillow says by many types what is wrong with a file, SyntaxError among them
        raise ValueError(
            f"'{source}' cannot be read as a picture ({error}); pass a PNG or JPEG file."
        ) from error


def load_image_from_base64(image: str) -> Image:
    """Decode a picture file."""
    from PIL import Image as pil

    return pil.open(BytesIO(base64.b64decode(image)))


def expand2square(pil_img: Image, background_color: int | tuple[int, ...]) -> Image:
    """Pad to a square, content in the middle; an odd pixel of padding goes to the right or the bottom."""
    from PIL import Image as pil

    width, height = pil_img.size
    if width == height:
        return pil_img
    side = max(width, height)
    square = pil.new(pil_img.mode, (side, side), background_color)
    square.paste(pil_img, ((side - width) // 2, (side - height) // 2))
    return square


def process_images(images: Sequence[Image], image_processor: Any, model_cfg: Any) -> Tensor | list[Tensor]:
    """Preprocess as the model was trained.

    Args:
        images: RGB pictures.
        image_processor: of the vision tower.
        model_cfg: `image_aspect_ratio` "anyres" cuts into tiles by `image_grid_pinpoints`, "pad" pads to a
            square with the mean colour; any other, or none, resizes the shorter side and crops the middle,
            which loses the borders.

    Returns:
        (N, 3, H, W) float32, or (N, tiles, 3, H, W) for anyres; a list of N without the first axis if their
        shapes differ.

    Raises:
        ValueError: anyres without sizes to choose from, or a variant of it that we do not have.
    """
    if wants_tiles(model_cfg):
        pinpoints = model_cfg.image_grid_pinpoints
        pixels = [process_anyres_image(image, image_processor, pinpoints) for image in images]
    else:
        if getattr(model_cfg, "image_aspect_ratio", None) == "pad":
            background = tuple(int(value * 255) for value in image_processor.image_mean)
            images = [expand2square(image, background) for image in images]
        pixels = [
            image_processor.preprocess(image, return_tensors="pt")["pixel_values"][0] for image in images
        ]
    if len({image.shape for image in pixels}) == 1:
        return torch.stack(pixels)
    return pixels


def tokenizer_image_token(
    prompt: str, tokenizer: Any, image_token_index: int = IMAGE_TOKEN_INDEX, return_tensors: str | None = None
) -> list[int] | Tensor:
    """Ids of a prompt with `image_token_index` for every `<image>`.

    Args:
        prompt: text; between images it is tokenized piece by piece (`tokenization.ids_around_images`).
        tokenizer: of the model.
        image_token_index: the placeholder id.
        return_tensors: None for a list, "pt" for int64 (L,).

    Raises:
        ValueError: another `return_tensors`.
    """
    if return_tensors not in (None, "pt"):
        raise ValueError(f"return_tensors is '{return_tensors}'; pass 'pt' for a tensor or None for a list.")
    ids = ids_around_images(
        prompt,
        lambda piece, _: text_to_ids(piece, tokenizer),
        image_token_index,
        lambda token: token == tokenizer.bos_token_id,
    )
    return torch.tensor(ids, dtype=torch.long) if return_tensors == "pt" else ids


def place_images(query: str, count: int, start_end: bool) -> str:
    """The query with one `<image>` for each picture: where `<image-placeholder>` stands, else in front.

    Args:
        query: a user's words.
        count: of pictures.
        start_end: the model wants `<im_start>` and `<im_end>` around each.
    """
    token = DEFAULT_IMAGE_TOKEN
    if start_end:
        token = DEFAULT_IM_START_TOKEN + token + DEFAULT_IM_END_TOKEN
    if IMAGE_PLACEHOLDER in query:
        return query.replace(IMAGE_PLACEHOLDER, token)
    return f"{token}\n" * count + query


def get_model_name_from_path(model_path: str) -> str:
    """Last component of a path; `parent_checkpoint-N` for a checkpoint inside a run."""
    parts = model_path.strip("/").split("/")
    return "_".join(parts[-2:]) if parts[-1].startswith("checkpoint-") else parts[-1]


class KeywordsStoppingCriteria:
    """Stop generating when every row ends in one of the keywords.

    Args:
        keywords: texts.
        tokenizer: of the model.
        input_ids: (B, L), the prompt.
    """

    def __init__(self, keywords: Sequence[str], tokenizer: Any, input_ids: Tensor) -> None:
        self.keywords = list(keywords)
        self.tokenizer = tokenizer
        self.keyword_ids = [
            torch.tensor(ids[1:] if len(ids) > 1 and ids[0] == tokenizer.bos_token_id else ids)
            for ids in (text_to_ids(keyword, tokenizer) for keyword in keywords)
        ]
        self.max_keyword_len = max((len(ids) for ids in self.keyword_ids), default=0)
        self.start_len: int | None = None
        self._prompt_len = input_ids.shape[1]

    def call_for_batch(self, output_ids: Tensor, scores: Any, **kwargs: Any) -> bool:
        """Whether the row `output_ids` (1, L) ends in a keyword, by its ids or in the decoded text."""
        if self.start_len is None:  # generation from embeddings has no prompt in its output
            self.start_len = self._prompt_len if output_ids.shape[1] > self._prompt_len else 0
        row = output_ids[0]
        if any(torch.equal(row[-len(ids) :], ids.to(row)) for ids in self.keyword_ids):
            return True
        tail = min(len(row) - self.start_len, self.max_keyword_len)
        text = self.tokenizer.decode(row[len(row) - tail :], skip_special_tokens=True)
        return any(keyword in text for keyword in self.keywords)

    def __call__(self, output_ids: Tensor, scores: Any, **kwargs: Any) -> bool:
        """Whether all rows do."""
        return all(self.call_for_batch(row[None], scores) for row in output_ids)
