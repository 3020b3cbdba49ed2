"""One large picture as several tiles (LLaVA v1.6, "anyres"): what a configuration asks for, and which grid.

A picture becomes tile 0, the whole of it, and a grid of tiles that show it in detail. Sizes of pictures are
(width, height), grids are (columns, rows).
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

Size = tuple[int, int]
Pinpoints = str | Sequence[Sequence[int]]
"""(width, height) pairs to choose from, or the text of such a list."""

MERGE_TYPES = ("flat", "spatial", "spatial_unpad")


def check_merge_type(merge_type: str) -> None:
    """Check that there is such a `mm_patch_merge_type`.

    Raises:
        ValueError: there is not.
    """
    if merge_type not in MERGE_TYPES:
        raise ValueError(
            f"mm_patch_merge_type is '{merge_type}', which this version does not have; take one of "
            f"{', '.join(MERGE_TYPES)}."
        )


def wants_tiles(config: Any) -> bool:
    """Whether images are to be cut into tiles; if so, everything that it takes is there.

    Args:
        config: a model's configuration or a run's `DataArguments`, with `image_aspect_ratio` and
            `image_grid_pinpoints`.

    Raises:
        ValueError: a variant of anyres that we do not have, or no list of sizes.
    """
    mode = getattr(config, "image_aspect_ratio", None) or ""
    if not mode.startswith("anyres"):
        return False
    if mode != "anyres":
        raise ValueError(
            f"image_aspect_ratio is '{mode}', a variant of LLaVA-NeXT that this version does not have; take "
            "'anyres', or a checkpoint of LLaVA v1.5 or v1.6."
        )
    pinpoints = getattr(config, "image_grid_pinpoints", None)
    if not pinpoints:
        raise ValueError(
            "image_aspect_ratio is 'anyres', but image_grid_pinpoints, the sizes to take, are missing; "
            "give them as [[width, height], ...]."
        )
    parse_pinpoints(pinpoints)
    return True


def parse_pinpoints(pinpoints: Pinpoints) -> list[Size]:
    """(width, height) pairs from a list of them or its text.

    Raises:
        ValueError: it is neither.
    """
    found: Any = pinpoints
    if isinstance(found, str):
        try:
            found = ast.literal_eval(found)
        except (ValueError, SyntaxError):
            found = None
    pairs = list(found) if isinstance(found, (list, tuple)) else []
    whole = all(
        isinstance(pair, (list, tuple))
        and len(pair) == 2
        and all(isinstance(length, int) and length > 0 for length in pair)
        for pair in pairs
    )
    if not pairs or not whole:
        raise ValueError(
            f"image_grid_pinpoints is {pinpoints!r}, which is no list of sizes; write it as "
            "[[width, height], ...]."
        )
    return [(width, height) for width, height in pairs]


def check_tiling(pinpoints: Pinpoints, tile: int) -> None:
    """Check that every size is a whole number of tiles of `tile` pixels.

    Raises:
        ValueError: one is not.
    """
    odd = [pair for pair in parse_pinpoints(pinpoints) if pair[0] % tile or pair[1] % tile]
    if odd:
        raise ValueError(
            f"image_grid_pinpoints holds {list(odd[0])}, which cannot be cut into the {tile} x {tile} tiles "
            "of the vision tower; take multiples of that."
        )


def select_best_resolution(original_size: Size, possible_resolutions: Sequence[Sequence[int]]) -> Size:
    """The candidate that keeps most of a picture's pixels, and among these the one with the least padding.

    Args:
        original_size: of the picture.
        possible_resolutions: (width, height) pairs; of equally good ones the first wins.
    """
    width, height = original_size

    def merit(candidate: Sequence[int]) -> tuple[int, int]:
        scale = min(candidate[0] / width, candidate[1] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - candidate[0] * candidate[1]

    best = max(possible_resolutions, key=merit)
    return best[0], best[1]


def get_anyres_image_grid_shape(image_size: Size, grid_pinpoints: Pinpoints, patch_size: int) -> Size:
    """(columns, rows) of the grid of tiles of `patch_size` pixels that a picture is cut into."""
    width, height = select_best_resolution(image_size, parse_pinpoints(grid_pinpoints))
    return width // patch_size, height // patch_size
