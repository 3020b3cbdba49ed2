"""How the features of a picture's tiles become one run of image tokens.

`flat` strings the tiles together and needs nothing from here. `spatial` puts the features of the grid back as
one plane, row by row, after those of tile 0; `spatial_unpad` leaves out what only shows padding and ends each
row of the plane with `image_newline`. Decided on the host, in integers; tensors of width D are only indexed.

Axes: M tiles of the batch, P features of a tile (side x side of them), S image tokens of the batch, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llava.model.anyres import Size, check_merge_type, get_anyres_image_grid_shape, wants_tiles

NEWLINE = -1


def needs_newline(merge_type: str | None) -> bool:
    """Whether this `mm_patch_merge_type` ends rows with `image_newline`."""
    return "unpad" in (merge_type or "flat")


def kept_window(original_size: Size, columns: int, rows: int) -> tuple[slice, slice]:
    """Rows and columns of a plane that show the picture, not the padding around it.

    Args:
        original_size: (width, height) of the picture.
        columns: width of the plane.
        rows: its height.
    """
    width, height = original_size
    if width / height > columns / rows:
        margin = (rows - int(height * (columns / width))) // 2
        return slice(margin, rows - margin), slice(0, columns)
    margin = (columns - int(width * (rows / height))) // 2
    return slice(0, rows), slice(margin, columns - margin)


def unpad_image(tensor: Tensor, original_size: Size) -> Tensor:
    """Crop (C, rows, columns) to the part that shows a picture of `original_size` (width, height)."""
    high, wide = kept_window(original_size, tensor.shape[2], tensor.shape[1])
    return tensor[:, high, wide]


class TileGrid:
    """How the tiles of a batch join, for a model and the size of its tiles.

    Args:
        config: of the model: `mm_patch_merge_type`, `image_aspect_ratio`, `image_grid_pinpoints`.
        tile: pixels along a tile.
        features: P.

    Raises:
        ValueError: an unknown `mm_patch_merge_type`.
    """

    def __init__(self, config: Any, tile: int, features: int) -> None:
        self.merge_type = getattr(config, "mm_patch_merge_type", None) or "flat"
        check_merge_type(self.merge_type)
        self.config, self.tile, self.features = config, tile, features

    def shape(self, size: Size) -> Size:
        """(columns, rows) for a picture of (width, height)."""
        return get_anyres_image_grid_shape(size, self.config.image_grid_pinpoints, self.tile)


class Merge(NamedTuple):
    """Which feature, or newline, stands at each of the S image tokens."""

    source: Tensor
    """(S - newlines,) int64: rows of the (M * P, D) features, each at most once."""
    order: Tensor
    """(S,) int64: places in those rows followed by the newlines."""
    newlines: int
    lengths: list[int]
    """Image tokens of each slot; they sum to S."""

    def apply(self, features: Tensor, newline: Tensor | None) -> Tensor:
        """Image tokens (S, D) from features (M * P, D) and `image_newline` (D,)."""
        rows = features.index_select(0, self.source.to(features.device))
        if newline is not None:  # joined also where none is needed, so that every rank has its gradient
            rows = torch.cat([rows, newline.to(rows).expand(self.newlines, -1)])
        return rows.index_select(0, self.order.to(features.device))


def join_tiles(
    encoded: Tensor,
    tiles: Sequence[int],
    image_sizes: Sequence[Any] | None,
    grid: TileGrid,
    newline: Tensor | None,
) -> tuple[Tensor, list[int]]:
    """Image tokens of a batch.

    Args:
        encoded: (M, P, D) features of all tiles.
        tiles: of each slot; 0 for a slot without an image.
        image_sizes: (width, height) of each slot's picture; may be None if none has several tiles.
        grid: of the batch.
        newline: (D,) `image_newline`, if the model has one.

    Returns:
        (S, D), and how many of these each slot has.

    Raises:
        ValueError: tiles, sizes and configuration do not fit each other.
    """
    features = encoded.flatten(0, 1)
    if grid.merge_type == "flat":
        return features, slot_lengths(tiles, image_sizes, grid)
    if max(tiles) > 1 and not wants_tiles(grid.config):
        raise ValueError(
            f"The batch has an image of {max(tiles)} tiles, but tiles join for image_aspect_ratio='anyres' "
            f"only, and the configuration says {getattr(grid.config, 'image_aspect_ratio', None)!r}; pass "
            "images of one tile."
        )
    if needs_newline(grid.merge_type) and newline is None:
        raise ValueError(
            f"mm_patch_merge_type is '{grid.merge_type}', but the model has no image_newline; load or train "
            "it with that type in its configuration."
        )
    merge = plan_merge(tiles, image_sizes, grid)
    return merge.apply(features, newline if needs_newline(grid.merge_type) else None), merge.lengths


def slot_lengths(tiles: Sequence[int], image_sizes: Sequence[Any] | None, grid: TileGrid) -> list[int]:
    """Image tokens of each slot; arguments and errors of `join_tiles`."""
    if grid.merge_type == "flat":
        return [count * grid.features for count in tiles]
    return plan_merge(tiles, image_sizes, grid).lengths


def plan_merge(tiles: Sequence[int], image_sizes: Sequence[Any] | None, grid: TileGrid) -> Merge:
    """Decide what stands where.

    A picture of one tile keeps its features as they are, with one newline after them in `spatial_unpad`.

    Args:
        tiles: of each slot; 0 for a slot without an image.
        image_sizes: (width, height) of each slot's picture; may be None if none has several tiles.
        grid: of the batch.

    Raises:
        ValueError: sizes are missing, or do not fit the tiles; or P is no square.
    """
    _check_sizes(tiles, image_sizes)
    pieces, first = [torch.empty(0, dtype=torch.int64)], 0
    for slot, count in enumerate(tiles):
        if count > 1:
            piece = _several_tiles(count, image_sizes[slot], grid)  # type: ignore[index]  # checked above
        else:
            end = [NEWLINE] if count and needs_newline(grid.merge_type) else []
            piece = torch.cat([torch.arange(count * grid.features), torch.tensor(end, dtype=torch.int64)])
        pieces.append(torch.where(piece == NEWLINE, piece, piece + first))
        first += count * grid.features
    tokens = torch.cat(pieces)
    is_newline = tokens == NEWLINE
    newlines = int(is_newline.sum())
    after_features = is_newline.cumsum(0) + (len(tokens) - newlines)
    order = torch.where(is_newline, after_features, (~is_newline).cumsum(0)) - 1
    return Merge(tokens[~is_newline], order, newlines, [len(piece) for piece in pieces[1:]])


def _check_sizes(tiles: Sequence[int], image_sizes: Sequence[Any] | None) -> None:
    if max(tiles, default=0) > 1 and (image_sizes is None or len(image_sizes) != len(tiles)):
        found = "none were" if image_sizes is None else f"{len(image_sizes)} were"
        raise ValueError(
            f"The batch has {len(tiles)} images, cut into tiles that join by the images' original sizes, but "
            f"{found} given; pass image_sizes=[(width, height), ...], one for each."
        )


def _several_tiles(count: int, size: Size, grid: TileGrid) -> Tensor:
    """Features of tile 0, then the plane row by row; counted within the picture."""
    side = isqrt(grid.features)
    if side * side != grid.features:
        raise ValueError(
            f"A tile has {grid.features} features, no square, so tiles cannot be joined as "
            f"mm_patch_merge_type='{grid.merge_type}'; take mm_vision_select_feature='patch'."
        )
    columns, rows = grid.shape(size)
    if columns * rows != count - 1:
        raise ValueError(
            f"A picture of {tuple(size)} is cut into 1 + {columns} x {rows} tiles, but {count} came; pass "
            "the sizes that the pictures had before preprocessing, in the order of the images."
        )
    plane = torch.arange(grid.features, count * grid.features).view(rows, columns, side, side)
    plane = plane.permute(0, 2, 1, 3).reshape(rows * side, columns * side)
    if needs_newline(grid.merge_type):
        plane = plane[kept_window(size, columns * side, rows * side)]
        plane = torch.cat([plane, plane.new_full((len(plane), 1), NEWLINE)], 1)
    return torch.cat([torch.arange(grid.features), plane.flatten()])
