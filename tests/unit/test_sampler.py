"""The sampler against properties that do not share its code."""

import random
from collections import Counter

import pytest
import torch

from llava.train.sampler import (
    EpochSampler,
    LengthGroupedSampler,
    get_length_grouped_indices,
    get_modality_length_grouped_indices,
    split_to_even_chunks,
)


def mixed_lengths(count, seed):
    draw = random.Random(seed)
    return [draw.choice([1, -1]) * draw.randint(1, 200) for _ in range(count)]


@pytest.mark.parametrize(
    ("indices", "num_chunks", "expected"),
    [
        # lengths 10*i; sums by hand: 5 -> A, 4 -> B, 3 -> B (40 < 50) fills B, so 2 -> A
        ([5, 4, 3, 2], 2, [[5, 2], [4, 3]]),
        ([5, 4, 3, 2, 1], 2, [[5, 3, 1], [4, 2]]),
        ([5, 4, 3], 3, [[5], [4], [3]]),
        ([7], 2, [[7], []]),
    ],
)
def test_chunks_are_the_ones_worked_out_by_hand(indices, num_chunks, expected):
    assert split_to_even_chunks(indices, [10 * i for i in range(8)], num_chunks) == expected


@pytest.mark.parametrize("count", [1, 7, 16, 33, 128])
@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (4, 1), (2, 2), (3, 4)])
def test_every_index_occurs_once(count, batch_size, world_size):
    lengths = mixed_lengths(count, seed=count)
    for group in (get_length_grouped_indices, get_modality_length_grouped_indices):
        order = group(lengths, batch_size, world_size, torch.Generator().manual_seed(3))
        assert Counter(order) == Counter(range(count))


@pytest.mark.parametrize("seed", range(5))
def test_only_the_last_megabatches_mix_modalities(seed):
    batch_size, world_size = 3, 2
    size = batch_size * world_size
    lengths = mixed_lengths(101, seed)
    order = get_modality_length_grouped_indices(
        lengths, batch_size, world_size, torch.Generator().manual_seed(seed)
    )
    images = sum(length > 0 for length in lengths)
    text = len(lengths) - images
    leftover = (images - 1) % size + 1 + (text - 1) % size + 1
    head, tail = order[: len(order) - leftover], order[len(order) - leftover :]
    assert len(head) % size == 0
    for start in range(0, len(head), size):
        assert len({lengths[index] > 0 for index in head[start : start + size]}) == 1
    assert tail == sorted(tail)
    assert len({lengths[index] > 0 for index in tail}) == 2


def test_batches_of_a_step_weigh_nearly_the_same():
    lengths = torch.randint(1, 100, (64,), generator=torch.Generator().manual_seed(5)).tolist()
    for megabatch in get_length_grouped_indices(lengths, 4, 4, torch.Generator().manual_seed(1), merge=False):
        sums = [sum(lengths[i] for i in batch) for batch in megabatch]
        assert {len(batch) for batch in megabatch} == {4}
        assert max(sums) - min(sums) <= max(lengths[i] for batch in megabatch for i in batch)


def test_order_is_a_function_of_seed_and_epoch():
    lengths = mixed_lengths(57, seed=2)

    def order(seed, epoch):
        sampler = LengthGroupedSampler(2, 2, lengths, group_by_modality=True, seed=seed)
        sampler.set_epoch(epoch)
        torch.rand(seed + 1)  # whatever else has drawn from the global generator does not matter
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(7, 3) != order(0, 3)


@pytest.mark.parametrize("make", [lambda: EpochSampler(20, 1), lambda: LengthGroupedSampler(2, 1, range(20))])
def test_the_global_generator_is_neither_read_nor_moved(make):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = list(make())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert list(make()) == first
    assert sorted(first) == list(range(20))


def test_a_generator_seeded_alike_replays_the_draws_of_the_global_one():
    """Upstream draws from the global generator: images, then text, then the order of megabatches."""
    lengths = [5, -3, 8, -9, 2, 7, -1, -4, 6, 3]
    torch.manual_seed(11)
    images = torch.randperm(6).tolist()
    ours = get_modality_length_grouped_indices(lengths, 1, 1, torch.Generator().manual_seed(11))
    members = [i for i, length in enumerate(lengths) if length > 0]
    text_order = [i for i in range(10) if lengths[i] < 0]
    torch.randperm(4)
    steps = torch.randperm(5 + 3).tolist()
    torch.manual_seed(11)
    torch.randperm(6)
    text = torch.randperm(4).tolist()
    full = [members[i] for i in images][:-1] + [text_order[i] for i in text][:-1]
    last = sorted([members[images[-1]], text_order[text[-1]]])
    assert ours == [full[i] for i in steps] + last


def test_zero_lengths_count_as_text():
    lengths = [4, 0, 5, -2, 0, 6, 7, -3]
    order = get_modality_length_grouped_indices(lengths, 2, 1, torch.Generator().manual_seed(0))
    assert sorted(order) == list(range(8))
    assert sorted(LengthGroupedSampler(2, 1, [0] * 6, group_by_modality=True)) == list(range(6))


def test_missing_lengths_are_refused():
    with pytest.raises(ValueError, match="got no lengths; pass one per sample"):
        LengthGroupedSampler(2, 1)
