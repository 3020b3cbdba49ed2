"""Grids of tiles, for all images at once and on the device, against transformers and LLaVA, one at a time."""

from __future__ import annotations

import random

import pytest
import torch
from tiny_llava import make_model
from transformers.models.llava_next import modeling_llava_next as peer

from regap_patch import ReGapConfig, apply_regap
from regap_patch.gap import mir
from regap_patch.hosts.llava_next import SLACK
from regap_patch.hosts.tiles import grids
from regap_patch.measure import MirSettings, measure_mir
from tests.contract.stored_states import hidden_states
from tests.unit.no_waiting import NoWaiting

RESOLUTIONS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
TILE, SIDE = 336, 24


def test_grids_are_those_of_transformers():
    draw = random.Random(0)
    sizes = [(draw.randint(10, 3000), draw.randint(10, 3000)) for _ in range(500)]
    sizes += [(336, 672), (672, 672), (100, 200), (480, 640), (640, 480), (333, 500), (1, 3000)]
    asked = torch.tensor(sizes), torch.tensor(RESOLUTIONS)
    with NoWaiting():
        found = grids(*asked, TILE, SIDE, slack=SLACK)
    for number, size in enumerate(sizes):
        high, wide = peer.get_anyres_image_grid_shape(size, RESOLUTIONS, TILE)
        kept = peer.unpad_image(torch.zeros(1, high * SIDE, wide * SIDE), size)
        assert found.across[number] == wide, size
        assert found.tiles[number] == peer.image_size_to_num_patches(size, RESOLUTIONS, TILE), size
        assert high * SIDE - 2 * found.top[number] == kept.shape[1], size
        assert wide * SIDE - 2 * found.left[number] == kept.shape[2], size
        assert found.tokens[number] == SIDE * SIDE + kept.shape[1] * (kept.shape[2] + 1), size


def test_grids_without_slack_are_those_of_llava():
    from llava.model.anyres import get_anyres_image_grid_shape
    from llava.model.tile_merge import kept_window

    draw = random.Random(1)
    sizes = [(draw.randint(10, 3000), draw.randint(10, 3000)) for _ in range(500)]  # high, wide
    pinpoints = [(wide, high) for high, wide in RESOLUTIONS]
    found = grids(torch.tensor(sizes), torch.tensor(RESOLUTIONS), TILE, SIDE)
    for number, (high, wide) in enumerate(sizes):
        across, down = get_anyres_image_grid_shape((wide, high), pinpoints, TILE)
        rows, columns = kept_window((wide, high), across * SIDE, down * SIDE)
        assert (found.across[number], found.tiles[number]) == (across, across * down + 1), (wide, high)
        assert found.top[number] == rows.start, (wide, high)
        assert found.left[number] == columns.start, (wide, high)


@pytest.fixture(scope="module", params=["spatial_unpad", "spatial", "flat"])
def llava(request, tiny):
    made = make_model(tiny, mm_patch_merge_type=request.param).eval()
    made.config.image_aspect_ratio = "anyres"
    made.config.image_grid_pinpoints = [list(pair) for pair in TestLlavaItself.PINPOINTS]
    return made


class TestLlavaItself:
    """LLaVA v1.6's own tiles: each picture has its number of image rows, and the newline is none of them."""

    PINPOINTS = ((56, 112), (112, 56), (112, 112))  # width, height
    SIZES = ((30, 70), (70, 30), (100, 90), (112, 112), (40, 43))

    def batch(self, model, numbers):
        from llava.model.anyres import get_anyres_image_grid_shape

        draw = torch.Generator().manual_seed(numbers[0])
        sizes = [self.SIZES[number] for number in numbers]
        grids_of = [get_anyres_image_grid_shape(size, self.PINPOINTS, 56) for size in sizes]
        images = [torch.randn(across * down + 1, 3, 56, 56, generator=draw) for across, down in grids_of]
        ids = torch.tensor([[1, *[-200] * len(numbers), 40 + numbers[0], 50, 51, 52]])
        return {"input_ids": ids, "images": images, "image_sizes": sizes}

    def by_hand(self, model, batch):
        """Positions of image rows: what is neither a word nor a newline."""
        placed = model.prepare_inputs_labels_for_multimodal(
            batch["input_ids"], None, None, None, None, batch["images"], batch["image_sizes"]
        )[4][0].detach()
        newline = getattr(model.model, "image_newline", None)
        words = model.get_input_embeddings()(batch["input_ids"].clamp(min=0)[0])
        other = words if newline is None else torch.cat([words, newline[None]])
        known = (placed[:, None] == other.detach()[None]).all(2).any(1)
        return (~known).nonzero().flatten().tolist()

    def test_mir_has_the_bits_of_storing_every_state(self, llava):
        batches = [self.batch(llava, [number]) for number in range(5)] + [self.batch(llava, [0, 3])]
        states = [hidden_states(llava, one) for one in batches]
        places = [self.by_hand(llava, one) for one in batches]
        layers = [
            ([state[k][0, place] for state, place in zip(states, places, strict=True)],
             [state[k][0, -4:] for state in states])
            for k in range(len(states[0]))
        ]  # fmt: skip
        report = measure_mir(llava, batches, MirSettings(groups=0))
        assert report.evaluation == {"mode": "layer_major"}
        assert report.result == mir(layers[1:], layer_zero=layers[0])
        counts = {len(place) for place in places}
        assert len(counts) > 3 if "spatial_unpad" in llava.config.mm_patch_merge_type else len(counts) > 1

    def test_the_regulariser_counts_the_rows_that_the_language_model_sees(self, llava):
        batch = self.batch(llava, [0, 2])
        labels = torch.full_like(batch["input_ids"], -100)
        labels[0, -3:] = batch["input_ids"][0, -3:]
        placed = llava.prepare_inputs_labels_for_multimodal(
            batch["input_ids"], None, None, None, None, batch["images"], batch["image_sizes"]
        )[4][0].detach()
        image = placed[self.by_hand(llava, batch)].mean(0)
        text = placed[-3:].mean(0)
        patch = apply_regap(llava, ReGapConfig(alpha=0.0))
        with patch.measuring():
            llava(**batch, labels=labels)
        patch.remove()
        assert patch.last.stats.centroid_l2.item() == pytest.approx((image - text).norm().item(), rel=1e-4)
