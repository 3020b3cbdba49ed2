"""How tiles join, against a reference that lays features out on a table, and the numbers of the design."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.model.anyres import check_tiling, parse_pinpoints, select_best_resolution, wants_tiles
from llava.model.tile_merge import TileGrid, join_tiles, plan_merge, slot_lengths, unpad_image

PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
TILE, SIDE, WIDTH = 56, 4, 3
P = SIDE * SIDE


def grid(merge_type: str, **changes: object) -> TileGrid:
    config = {
        "mm_patch_merge_type": merge_type,
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": PINPOINTS,
    }
    return TileGrid(SimpleNamespace(**{**config, **changes}), TILE, P)


def by_hand(tiles: list[torch.Tensor], size: tuple[int, int], merge_type: str, newline: torch.Tensor):
    """One picture's tokens, cell by cell; a cell is kept if most of it shows picture by exact arithmetic."""
    if merge_type == "flat":
        return [row for tile in tiles for row in tile]
    out = list(tiles[0])
    if len(tiles) == 1:
        return [*out, newline] if merge_type == "spatial_unpad" else out
    best = select_best_resolution(size, PINPOINTS)
    columns, rows = best[0] // TILE, best[1] // TILE
    cells = [
        [
            tiles[1 + (y // SIDE) * columns + x // SIDE][(y % SIDE) * SIDE + x % SIDE]
            for x in range(columns * SIDE)
        ]
        for y in range(rows * SIDE)
    ]
    if merge_type == "spatial_unpad":
        high, wide = len(cells), len(cells[0])
        if size[0] * high > size[1] * wide:
            cut = (high - int(size[1] * (wide / size[0]))) // 2
            cells = cells[cut : high - cut]
        else:
            cut = (wide - int(size[0] * (high / size[1]))) // 2
            cells = [row[cut : wide - cut] for row in cells]
        cells = [[*row, newline] for row in cells]
    return out + [cell for row in cells for cell in row]


def number_of_tiles(size: tuple[int, int]) -> int:
    best = select_best_resolution(size, PINPOINTS)
    return 1 + (best[0] // TILE) * (best[1] // TILE)


sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))
slots = st.lists(st.tuples(sizes, st.sampled_from(["tiles", "one", "none"])), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(slots, st.sampled_from(["flat", "spatial", "spatial_unpad"]))
def test_any_batch_equals_the_reference_with_its_gradients(slots, merge_type):
    counts = {"tiles": number_of_tiles, "one": lambda _: 1, "none": lambda _: 0}
    tiles = [counts[kind](size) for size, kind in slots]
    image_sizes = [size for size, _ in slots]
    generator = torch.Generator().manual_seed(0)
    encoded = torch.randn(sum(tiles), P, WIDTH, dtype=torch.float64, generator=generator).requires_grad_()
    newline = torch.randn(WIDTH, dtype=torch.float64, generator=generator).requires_grad_()
    expected = [
        by_hand(list(part), size, merge_type, newline) if len(part) else []
        for part, size in zip(encoded.split(tiles), image_sizes, strict=True)
    ]
    got, lengths = join_tiles(encoded, tiles, image_sizes, grid(merge_type), newline)
    assert lengths == slot_lengths(tiles, image_sizes, grid(merge_type)) == [len(part) for part in expected]
    rows = [row for part in expected for row in part]
    wanted = torch.stack(rows) if rows else encoded.new_zeros(0, WIDTH)
    assert torch.equal(got, wanted)
    outgoing = torch.randn(got.shape, dtype=torch.float64, generator=generator)
    if rows:
        mine = torch.autograd.grad(got, [encoded, newline], outgoing, allow_unused=True)
        theirs = torch.autograd.grad(wanted, [encoded, newline], outgoing, allow_unused=True)
        for grad, want in zip(mine, theirs, strict=True):
            if want is None:
                assert grad is None or not grad.any()
            else:
                torch.testing.assert_close(grad, want)


@pytest.mark.parametrize(("merge_type", "tokens"), [("flat", 80), ("spatial", 80), ("spatial_unpad", 88)])
def test_a_square_picture_in_two_by_two_tiles(merge_type, tokens):
    assert slot_lengths([5], [(64, 64)], grid(merge_type)) == [tokens]


def test_a_newline_that_no_row_uses_has_a_gradient_all_the_same():
    """Every rank must have the same parameters in its graph."""
    newline = torch.zeros(WIDTH, requires_grad=True)
    merge = plan_merge([0], [None], grid("spatial_unpad"))
    merge.apply(torch.zeros(0, WIDTH, requires_grad=True), newline).sum().backward()
    assert torch.equal(newline.grad, torch.zeros(WIDTH))


@pytest.mark.parametrize(
    ("size", "best"),
    [((80, 56), (112, 56)), ((64, 64), (112, 112)), ((30, 30), (56, 112)), ((600, 200), (168, 56))],
)
def test_best_resolutions_of_the_design(size, best):
    assert select_best_resolution(size, PINPOINTS) == best


def test_unpadding_crops_the_side_that_was_padded():
    plane = torch.arange(48).view(1, 6, 8)
    assert torch.equal(unpad_image(plane, (80, 30)), plane[:, 1:5])
    assert torch.equal(unpad_image(plane, (30, 60)), plane[:, :, 2:6])
    assert torch.equal(unpad_image(plane, (8, 6)), plane)


@pytest.mark.parametrize(
    ("tiles", "image_sizes", "changes", "sentence"),
    [
        (
            [5],
            None,
            {},
            "1 images, cut into tiles that join by the images' original sizes, but none were given",
        ),
        ([5, 1], [(64, 64)], {}, "2 images, cut into tiles .* but 1 were given"),
        ([4], [(64, 64)], {}, r"A picture of \(64, 64\) is cut into 1 \+ 2 x 2 tiles, but 4 came"),
        (
            [5],
            [(64, 64)],
            {"image_aspect_ratio": "pad"},
            "for image_aspect_ratio='anyres' only, .* says 'pad'",
        ),
        (
            [5],
            [(64, 64)],
            {"image_grid_pinpoints": None},
            "image_grid_pinpoints, the sizes to take, are missing",
        ),
    ],
)
def test_tiles_sizes_and_configuration_must_fit(tiles, image_sizes, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        join_tiles(
            torch.zeros(sum(tiles), P, WIDTH),
            tiles,
            image_sizes,
            grid("spatial", **changes),
            torch.zeros(WIDTH),
        )


def test_features_that_are_no_square_are_refused():
    odd = grid("spatial")
    odd.features = P + 1
    with pytest.raises(ValueError, match=r"17 features, no square, .* mm_vision_select_feature='patch'"):
        plan_merge([5], [(64, 64)], odd)


def test_a_model_without_a_newline_is_refused():
    with pytest.raises(ValueError, match="the model has no image_newline"):
        join_tiles(torch.zeros(1, P, WIDTH), [1], None, grid("spatial_unpad"), None)
    with pytest.raises(
        ValueError, match="mm_patch_merge_type is 'maxpool', which this version does not have"
    ):
        grid("maxpool")


@pytest.mark.parametrize(
    "text", ["[[336, 672], [672, 336]]", [[336, 672], [672, 336]], ((336, 672), (672, 336))]
)
def test_pinpoints_are_a_list_or_its_text(text):
    assert parse_pinpoints(text) == [(336, 672), (672, 336)]


@pytest.mark.parametrize(
    "text", ["(1x1),(2x2)", "[]", [[336]], [336, 672], "[[336, -672]]", "[[1.5, 2]]", "import os"]
)
def test_anything_else_is_no_list_of_sizes(text):
    with pytest.raises(ValueError, match="which is no list of sizes; write it as"):
        parse_pinpoints(text)


def test_a_size_must_be_a_whole_number_of_tiles():
    check_tiling(PINPOINTS, 56)
    with pytest.raises(ValueError, match=r"holds \[100, 56\], which cannot be cut into the 56 x 56 tiles"):
        check_tiling([[112, 56], [100, 56]], 56)


def test_which_configurations_want_tiles():
    pinned = {"image_grid_pinpoints": PINPOINTS}
    assert wants_tiles(SimpleNamespace(image_aspect_ratio="anyres", **pinned))
    for mode in ("pad", "square", None):
        assert not wants_tiles(SimpleNamespace(image_aspect_ratio=mode, **pinned))
    assert not wants_tiles(SimpleNamespace())
    with pytest.raises(ValueError, match="'anyres_max_9', a variant of LLaVA-NeXT"):
        wants_tiles(SimpleNamespace(image_aspect_ratio="anyres_max_9", **pinned))
