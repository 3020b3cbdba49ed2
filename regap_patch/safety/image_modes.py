"""What stands in the picture's place: the same item with and without it, so that the two can be paired.

Every mode but `real` and `irrelevant` is made here, to the same bytes on every machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import NamedTuple

from regap_patch.errors import BenchmarkError
from regap_patch.records import ImageMode, Sample
from regap_patch.safety.png import plain_png, png

SIDE = 336  # of made pictures, where the item has none whose size they could take
COLOURS: dict[str, tuple[int, int, int]] = {
    "blank": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (122, 116, 104),  # the mean of CLIP's preprocessing: after it, zero to 0.02
}
WORDS = (
    "A wooden table stands in a bright room with a window.",
    "Two chairs are placed next to a small round table.",
    "A white cup with a blue rim is on a kitchen shelf.",
    "A gravel path leads across a green field under a grey sky.",
    "Three red apples lie in a bowl on a plain cloth.",
    "A bicycle leans against a low stone wall beside a garden.",
    "An open book lies on a desk next to a lamp.",
    "A row of tall trees stands along a quiet street.",
)
"""Captions of pictures that show nothing of note: what an image adds has to be more than these."""


class Picture(NamedTuple):
    """A picture that may be shown with another item."""

    name: str
    cluster: str
    root: Path


def is_possible(item: Sample, mode: ImageMode) -> bool:
    """Whether an item can be asked in a mode: only `real` needs a picture of its own."""
    return mode != "real" or item.image is not None


def in_mode(
    item: Sample, mode: ImageMode, root: Path, *, seed: int = 0, pool: Sequence[Picture] = ()
) -> tuple[Sample, bytes | None]:
    """An item in an image mode.

    All modes but `real` ask `meta["text_prompt"]` where an adapter gives it: a prompt that points at its
    picture means nothing beside another, and pairs of modes differ in what stands in its place alone.
    `meta["words"]` is the text of mode words, one of `WORDS` by default.

    Args:
        item: as its adapter gives it.
        mode: what is to stand in the picture's place.
        root: folder that the item's picture is relative to.
        seed: of noise, words and the choice of an irrelevant picture; each item draws its own.
        pool: sorted pictures to choose from in mode irrelevant; those of the item's cluster are passed over.

    Returns:
        The sample, with the SHA-256 of the bytes, and the bytes; None in the modes without a picture.

    Raises:
        BenchmarkError: a picture that is missing or does not open, or nothing to choose from.
    """
    draw = Random(hashlib.sha256(f"{seed}\0{mode}\0{item.uid}".encode()).digest())
    picture: bytes | None = None
    name, meta = None, dict(item.meta)
    prompt = item.prompt if mode == "real" else str(meta.get("text_prompt", item.prompt))
    if mode == "words":
        meta.setdefault("words", WORDS[draw.getrandbits(64) % len(WORDS)])
    elif mode == "real":
        name, picture = item.image, _own(item, root)
    elif mode == "irrelevant":
        chosen = _other(item, pool, draw)
        name, picture = chosen.name, read_picture(chosen.root / chosen.name, item.uid)
    elif mode != "none":
        picture = meaningless(mode, _size(item, root), draw)
    if mode != "words":
        meta.pop("words", None)
    made = dataclasses.replace(
        item,
        prompt=prompt,
        image=name,
        image_sha256=None if picture is None else hashlib.sha256(picture).hexdigest(),
        image_mode=mode,
        meta=meta,
    )
    return made, picture


def meaningless(kind: str, size: tuple[int, int], draw: Random) -> bytes:
    """A picture that shows nothing.

    Args:
        kind: blank, black, grey or noise.
        size: width and height.
        draw: of noise.
    """
    if kind in COLOURS:
        return _plain(*size, kind)
    width, height = size
    return png(width, height, draw.randbytes(3 * width * height))


def pictures_in(folder: Path) -> list[Picture]:
    """All pictures of a folder, sorted, for mode irrelevant.

    Raises:
        BenchmarkError: there is none.
    """
    suffixes = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
    found = sorted(path.name for path in folder.glob("*") if path.suffix.lower() in suffixes)
    if not found:
        raise BenchmarkError(
            f"Irrelevant pictures were to be taken from {folder}, but it holds no "
            f"{', '.join(sorted(suffixes))}: name a folder of pictures."
        )
    return [Picture(name, "", folder) for name in found]


def read_picture(path: Path, uid: str) -> bytes:
    """The bytes of a picture file that opens.

    Raises:
        BenchmarkError: it does not.
    """
    from PIL import Image

    try:
        data = path.read_bytes()
        with Image.open(BytesIO(data)) as picture:
            picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unopened(path, uid, error) from error
    return data


def _unopened(path: Path, uid: str, error: Exception) -> BenchmarkError:
    return BenchmarkError(
        f"The picture {path} of item {uid} does not open ({type(error).__name__}: {error}): fetch it again, "
        f"or take the item out."
    )


def _own(item: Sample, root: Path) -> bytes:
    if item.image is None:
        raise BenchmarkError(f"Item {item.uid} was asked for with its picture, but it has none.")
    return read_picture(root / item.image, item.uid)


def _other(item: Sample, pool: Sequence[Picture], draw: Random) -> Picture:
    others = [one for one in pool if one.cluster != item.cluster and one.name != item.image]
    if not others:
        raise BenchmarkError(
            f"Item {item.uid} was asked for with an irrelevant picture, but {item.benchmark} has none of "
            f"another item: name a folder of pictures with --irrelevant_images."
        )
    return others[draw.getrandbits(64) % len(others)]


def _size(item: Sample, root: Path) -> tuple[int, int]:
    if item.image is None:
        return SIDE, SIDE
    from PIL import Image

    try:
        with Image.open(root / item.image) as picture:  # its header alone is read
            return picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unopened(root / item.image, item.uid, error) from error


@lru_cache(maxsize=16)
def _plain(width: int, height: int, mode: str) -> bytes:
    return plain_png(width, height, COLOURS[mode])
