"""The images of a sample: which it names, how often it speaks of them, and what the model gets of them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.train.preprocess import SampleError

if TYPE_CHECKING:
    from PIL import Image

    from llava.train.arguments import DataArguments


class SampleImages(NamedTuple):
    """Of each image, in the order of the sample."""

    pixels: list[torch.Tensor]
    """(3, H, W), or (tiles, 3, H, W) with `anyres`, float32."""
    sizes: list[tuple[int, int]]
    """(width, height) of the file."""
    tokens: list[int]
    """Positions that it takes in the language model."""


def image_names(entry: dict[str, Any]) -> list[str]:
    """The paths under `image`: one, a list of them, or none without that key.

    Raises:
        SampleError: Something else stands there.
    """
    if "image" not in entry:
        return []
    named = entry["image"]
    names = named if isinstance(named, list) else [named]
    if not names or not all(isinstance(name, str) for name in names):
        raise SampleError(f"its image is {named!r}; give the path of an image file, or a list of such paths")
    return names


def check_placeholders(turns: Sequence[Any], images: int) -> None:
    """Check that the turns speak of each image once.

    Raises:
        SampleError: They have more `<image>` than there are images, or fewer.
    """
    asked = sum(turn["value"].count(DEFAULT_IMAGE_TOKEN) for turn in turns)
    if asked != images:
        raise SampleError(
            f"it has {images} image{'' if images == 1 else 's'} and {asked} {DEFAULT_IMAGE_TOKEN} in its "
            f"turns; write {DEFAULT_IMAGE_TOKEN} once for each image and nowhere else"
        )


def read_images(names: Sequence[str], data_args: DataArguments) -> SampleImages:
    """Reads image files and prepares them as the run's flags say.

    Raises:
        SampleError: A file is missing, is no image, or is damaged.
    """
    from llava.mm_utils import process_images

    images = [load_image(Path(data_args.image_folder or "") / name) for name in names]
    pixels = list(process_images(images, data_args.image_processor, data_args))
    sizes = [image.size for image in images]
    return SampleImages(pixels, sizes, _count_tokens(pixels, sizes, data_args))


def no_image(data_args: DataArguments) -> SampleImages:
    """What a text-only sample carries: the model takes an image for every row, and shows this one nowhere."""
    from llava.model.anyres import wants_tiles
    from llava.tiles import tile_size

    side = tile_size(data_args.image_processor)
    black = torch.zeros(3, side, side)
    return SampleImages([black[None] if wants_tiles(data_args) else black], [(side, side)], [])


def _count_tokens(
    pixels: Sequence[torch.Tensor], sizes: Sequence[tuple[int, int]], data_args: DataArguments
) -> list[int]:
    from llava.model.tile_merge import TileGrid, slot_lengths

    if pixels[0].ndim == 3:
        return [data_args.image_tokens] * len(pixels)
    grid = TileGrid(data_args, pixels[0].shape[-1], data_args.image_tokens)
    return slot_lengths([len(image) for image in pixels], sizes, grid)


def load_image(path: str | Path) -> Image.Image:
    """An image file as RGB.

    Raises:
        SampleError: The file is missing, is no image, or is damaged.
    """
    from PIL import Image, UnidentifiedImageError

    if not Path(path).is_file():
        raise SampleError(f"its image {path} does not exist; check --image_folder and the sample's `image`")
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise SampleError(
            f"its image {path} is not an image file, whatever its name says; replace it"
        ) from error
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise SampleError(f"its image {path} is damaged ({error}); fetch it again") from error
