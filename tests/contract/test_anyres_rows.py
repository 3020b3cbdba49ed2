"""LLaVA-NeXT's grids, for all images at once and on the device, against transformers, one at a time."""

from __future__ import annotations

import random

import torch
from transformers.models.llava_next import modeling_llava_next as peer

from regap_patch.hosts.llava_next import grids
from tests.unit.no_waiting import NoWaiting

RESOLUTIONS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
TILE, SIDE = 336, 24


def test_grids_are_those_of_transformers():
    draw = random.Random(0)
    sizes = [(draw.randint(10, 3000), draw.randint(10, 3000)) for _ in range(500)]
    sizes += [(336, 672), (672, 672), (100, 200), (480, 640), (640, 480), (333, 500), (1, 3000)]
    asked = torch.tensor(sizes), torch.tensor(RESOLUTIONS)
    with NoWaiting():
        found = grids(*asked, TILE, SIDE)
    for number, size in enumerate(sizes):
        high, wide = peer.get_anyres_image_grid_shape(size, RESOLUTIONS, TILE)
        kept = peer.unpad_image(torch.zeros(1, high * SIDE, wide * SIDE), size)
        assert found.across[number] == wide, size
        assert found.tiles[number] == peer.image_size_to_num_patches(size, RESOLUTIONS, TILE), size
        assert high * SIDE - 2 * found.top[number] == kept.shape[1], size
        assert wide * SIDE - 2 * found.left[number] == kept.shape[2], size
        assert found.tokens[number] == SIDE * SIDE + kept.shape[1] * (kept.shape[2] + 1), size
