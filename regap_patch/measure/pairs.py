"""Which image goes with which text: seeded, sorted and written down.

An item's rank is a hash of the seed and its name. So the first 20 of 100 pairs are those that `--pairs 20`
takes, a new file in the folder moves no other, and every Python version draws the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from regap_patch.errors import MeasureError
from regap_patch.measure.sources import image_files, llava_samples, texts

UNRELATED, CAPTIONS = "unrelated", "captions"
PAIRINGS = (UNRELATED, CAPTIONS)
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Pair:
    """One unit of sampling.

    Attributes:
        name: of image and text, for messages and for the JSON.
        images: files.
        text: never empty.
    """

    name: str
    images: tuple[Path, ...]
    text: str


@dataclass(frozen=True)
class PairSet:
    """Pairs and where they come from.

    Attributes:
        pairs: in the order in which they were drawn.
        provenance: sources, seed, pairing, and SHA-256 of the images and of the texts, in this order.
    """

    pairs: tuple[Pair, ...]
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return len(self.pairs)


def choose_pairs(
    images: str | Path,
    texts_from: str | Path,
    *,
    count: int,
    seed: int = 0,
    pairing: str = UNRELATED,
    image_folder: str | Path | None = None,
) -> PairSet:
    """Draw image-text pairs.

    Args:
        images: folder, or JSON in LLaVA's format; with `captions` the folder to which the JSON's names are
            relative.
        texts_from: JSON in LLaVA's format, text file (one text a line), story file, or folder of such files.
        count: how many.
        seed: which.
        pairing: `unrelated` draws images and texts apart from each other, as the published procedure does;
            `captions` takes samples of the JSON with their own images.
        image_folder: what the names in a JSON of images are relative to; by default where it lies.

    Raises:
        MeasureError: fewer pairs than asked for, an image that is not there, or an empty text.
    """
    if count < 2:
        raise MeasureError(f"{count} pairs were asked for, but spread needs at least 2: raise --pairs.")
    images, texts_from = Path(images), Path(texts_from)
    if pairing == CAPTIONS:
        shown = [sample for sample in llava_samples(texts_from) if sample.images]
        chosen = _draw(shown, "sample", count, seed, lambda sample: sample.name, texts_from)
        drawn = [(tuple(images / name for name in sample.images), sample) for sample in chosen]
    else:
        root = images if images.is_dir() else Path(image_folder or images.parent)
        files = image_files(images, root)
        pictures = _draw(files, "image", count, seed, lambda path: _below(root, path), images)
        words = _draw(texts(texts_from), "text", count, seed, lambda text: text.name, texts_from)
        drawn = [((picture,), text) for picture, text in zip(pictures, words, strict=True)]
    for _, text in drawn:
        if not text.text:
            raise MeasureError(
                f"Text {text.name} of {texts_from} was drawn, but it is empty: mend it, or take it out."
            )
    pairs = tuple(
        Pair(f"{', '.join(path.name for path in paths)} with text {text.name}", paths, text.text)
        for paths, text in drawn
    )
    return PairSet(pairs, _provenance(pairs, images, texts_from, seed, pairing))


def _draw(
    items: Sequence[_Item], kind: str, count: int, seed: int, name: Callable[[_Item], str], source: Path
) -> list[_Item]:
    if len(items) < count:
        raise MeasureError(
            f"{count} pairs were asked for, but {source} has {len(items)} {kind}s: ask for fewer with "
            f"--pairs, or name a larger source."
        )

    def rank(item: _Item) -> tuple[str, str]:
        called = name(item)
        return hashlib.sha256(f"{seed}\0{kind}\0{called}".encode()).hexdigest(), called

    return sorted(items, key=rank)[:count]


def _below(root: Path, path: Path) -> str:
    """The path from the folder of images on; whole for one that a JSON names from the root of the disk."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _provenance(
    pairs: Sequence[Pair], images: Path, texts_from: Path, seed: int, pairing: str
) -> dict[str, Any]:
    pictures, words = hashlib.sha256(), hashlib.sha256()
    for pair in pairs:
        for path in pair.images:
            pictures.update(_digest_of(path))
        words.update(hashlib.sha256(pair.text.encode()).digest())
    return {
        "pairs": len(pairs),
        "seed": seed,
        "pairing": pairing,
        "images": {"source": str(images), "sha256": pictures.hexdigest()},
        "texts": {"source": str(texts_from), "sha256": words.hexdigest()},
        "names": [pair.name for pair in pairs],
    }


def _digest_of(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise MeasureError(
            f"The image {path} was drawn, but it cannot be read ({error.strerror or error}): mend it, or "
            f"name the folder that holds it."
        ) from error
