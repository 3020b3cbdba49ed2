"""The order of training samples, as a function of (seed, epoch) alone.

No global random state is read or moved, so a run that resumes in the middle of an epoch sees the samples
that an uninterrupted run would have seen, and every process of a distributed run computes the same order.

A *megabatch* is what one optimizer step consumes: `world_size * batch_size` samples, where `world_size`
counts the processes times the gradient accumulation steps. Grouping fills each megabatch with samples of one
modality, so no step has images on some processes and none on others, and deals them to batches of nearly
equal total length, so no process waits for another. (It does not gather alike lengths: who meets whom in a
megabatch is chance, as upstream.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


def split_to_even_chunks(indices: Sequence[int], lengths: Sequence[int], num_chunks: int) -> list[list[int]]:
    """Deal `indices` into `num_chunks` chunks of nearly equal total length.

    A number of indices that does not divide evenly is dealt like cards. Otherwise every index, in the given
    order, goes to the lightest chunk that still has a free place.
    """
    if len(indices) % num_chunks:
        return [list(indices[start::num_chunks]) for start in range(num_chunks)]
    places = len(indices) // num_chunks
    chunks: list[list[int]] = [[] for _ in range(num_chunks)]
    weights: list[float] = [0.0] * num_chunks
    for index in indices:
        lightest = weights.index(min(weights))
        chunks[lightest].append(index)
        weights[lightest] += lengths[index]
        if len(chunks[lightest]) == places:
            weights[lightest] = float("inf")
    return chunks


def _seeded(generator: torch.Generator | None) -> torch.Generator:
    return generator if generator is not None else torch.Generator().manual_seed(0)


def _megabatches(indices: Sequence[int], size: int) -> list[list[int]]:
    return [list(indices[start : start + size]) for start in range(0, len(indices), size)]


def get_length_grouped_indices(
    lengths: Sequence[int],
    batch_size: int,
    world_size: int,
    generator: torch.Generator | None = None,
    merge: bool = True,
) -> list:
    """Shuffle, cut into megabatches, and balance the batches inside each of them by length.

    Args:
        lengths: one length per sample; only their order and sums matter, so they may be negative.
        batch_size: samples in one forward pass of one process.
        world_size: processes times accumulation steps, the batches in a megabatch.
        generator: source of the shuffle; None is a generator seeded with 0.
        merge: False returns the nesting `[megabatch][batch][index]` instead of the flat order.

    Returns:
        Every index once, longest first within a megabatch before it is dealt to batches.
    """
    order = torch.randperm(len(lengths), generator=_seeded(generator)).tolist()
    nested = [
        split_to_even_chunks(
            sorted(megabatch, key=lambda index: lengths[index], reverse=True), lengths, world_size
        )
        for megabatch in _megabatches(order, world_size * batch_size)
    ]
    if not merge:
        return nested
    return [index for megabatch in nested for batch in megabatch for index in batch]


def get_modality_length_grouped_indices(
    lengths: Sequence[int],
    batch_size: int,
    world_size: int,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Like `get_length_grouped_indices`, with megabatches of a single modality.

    Args:
        lengths: positive for a sample with an image, negative or zero for text alone.
        batch_size: samples in one forward pass of one process.
        world_size: processes times accumulation steps.
        generator: source of every shuffle; None is a generator seeded with 0.

    Returns:
        Every index once. The last megabatch of each modality, often a short one, is kept aside, and the two
        together close the epoch in index order: the only place where modalities mix.
    """
    generator = _seeded(generator)
    with_image = [index for index, length in enumerate(lengths) if length > 0]
    text_only = [index for index, length in enumerate(lengths) if length <= 0]
    if not with_image or not text_only:
        return get_length_grouped_indices(lengths, batch_size, world_size, generator)

    full: list[list[int]] = []
    leftover: list[int] = []
    for members in (with_image, text_only):
        sizes = [abs(lengths[index]) for index in members]
        order = get_length_grouped_indices(sizes, batch_size, world_size, generator)
        *complete, last = _megabatches([members[place] for place in order], world_size * batch_size)
        full += complete
        leftover += last
    shuffled = [full[place] for place in torch.randperm(len(full), generator=generator).tolist()]
    return [index for megabatch in [*shuffled, sorted(leftover)] for index in megabatch]


class EpochSampler(Sampler[int]):
    """A permutation of `range(size)` that depends on the seed and the epoch, and on nothing else."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration yields."""
        self.epoch = epoch

    def order(self, generator: torch.Generator) -> list[int]:
        """The permutation drawn from `generator`; subclasses group it."""
        return torch.randperm(self.size, generator=generator).tolist()

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(torch.Generator().manual_seed(self.seed + self.epoch)))


class LengthGroupedSampler(EpochSampler):
    """Balances the batches of every megabatch by length, and keeps modalities apart if asked.

    Args:
        batch_size: samples in one forward pass of one process.
        world_size: processes times gradient accumulation steps.
        lengths: one per sample; with `group_by_modality`, negative marks text alone.
        generator: if given, drawn from at every iteration in place of (seed, epoch).
        group_by_modality: keep the modalities apart.
        seed: with the epoch, what the order depends on.

    Raises:
        ValueError: no lengths were given.
    """

    def __init__(
        self,
        batch_size: int,
        world_size: int,
        lengths: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        group_by_modality: bool = False,
        seed: int = 0,
    ) -> None:
        if lengths is None:
            raise ValueError(
                "LengthGroupedSampler balances lengths, but got no lengths; pass one per sample."
            )
        super().__init__(len(lengths), seed)
        self.batch_size = batch_size
        self.world_size = world_size
        self.lengths = lengths
        self.generator = generator
        self.group_by_modality = group_by_modality

    def order(self, generator: torch.Generator) -> list[int]:
        """The grouped permutation drawn from `generator`."""
        group = get_modality_length_grouped_indices if self.group_by_modality else get_length_grouped_indices
        return group(self.lengths, self.batch_size, self.world_size, self.generator or generator)
