"""The splice against a reference that moves one symbol at a time."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.splice import plan_splice, splice_embeddings, splice_labels

WIDTH = 3


class Expected(NamedTuple):
    embeds: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    cut_rows: int


def by_hand(ids, mask, labels, text, slots, max_length, side) -> Expected:
    """Each row as a list of (vector, label), made, cut and padded in plain Python.

    ids, mask, labels: lists of rows; text: (B, L, D); slots: list of (n, D).
    """
    slots = iter(slots)
    rows = []
    for b, row in enumerate(ids):
        kept = [i for i in range(len(row)) if mask[b][i]]
        images = {i: next(slots) for i in kept if row[i] == IMAGE_TOKEN_INDEX}
        if not images:
            next(slots)
        cells = []
        for i in kept:
            if i in images:
                cells += [(vector, IGNORE_INDEX) for vector in images[i]]
            else:
                cells.append((text[b, i], labels[b][i]))
        rows.append(cells)
    assert next(slots, None) is None
    cut = [row[:max_length] for row in rows]
    longest = max(len(row) for row in cut)
    zero = (torch.zeros(WIDTH, dtype=text.dtype), IGNORE_INDEX)
    embeds, new_labels, new_mask, positions = [], [], [], []
    for row in cut:
        fill = longest - len(row)
        before, after = (fill, 0) if side == "left" else (0, fill)
        padded = [zero] * before + row + [zero] * after
        embeds += [vector for vector, _ in padded]
        new_labels.append([label for _, label in padded])
        new_mask.append([False] * before + [True] * len(row) + [False] * after)
        positions.append([0] * before + list(range(len(row))) + [0] * after)
    stacked = torch.stack(embeds) if embeds else text.new_zeros(0, WIDTH)
    return Expected(
        stacked.view(len(rows), longest, WIDTH),
        torch.tensor(new_labels, dtype=torch.long).view(len(rows), longest),
        torch.tensor(new_mask, dtype=torch.bool).view(len(rows), longest),
        torch.tensor(positions, dtype=torch.long).view(len(rows), longest),
        sum(len(row) > len(short) for row, short in zip(rows, cut, strict=True)),
    )


def check(ids, mask, slot_lengths, max_length=None, side="right"):
    """Values, masks, positions, and both gradients."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.tensor(ids)
    text = torch.randn(*input_ids.shape, WIDTH, dtype=torch.float64, generator=generator).requires_grad_()
    features = torch.randn(
        sum(slot_lengths), WIDTH, dtype=torch.float64, generator=generator
    ).requires_grad_()
    labels = torch.arange(input_ids.numel()).view_as(input_ids)

    expected = by_hand(ids, mask, labels.tolist(), text, features.split(slot_lengths), max_length, side)
    plan = plan_splice(input_ids, slot_lengths, torch.tensor(mask), max_length=max_length, padding_side=side)
    got = splice_embeddings(plan, text.flatten(0, 1)[plan.text_source], features)

    assert torch.equal(got, expected.embeds)
    assert torch.equal(splice_labels(plan, labels), expected.labels)
    assert torch.equal(plan.attention_mask(), expected.mask)
    assert torch.equal(plan.position_ids(), expected.positions)
    assert plan.padded == bool((~expected.mask).any())
    assert plan.cut_rows == expected.cut_rows
    outgoing = torch.randn(got.shape, dtype=torch.float64, generator=generator)
    wanted = torch.autograd.grad(expected.embeds, [text, features], outgoing, allow_unused=True)
    for grad, want, leaf in zip(
        torch.autograd.grad(got, [text, features], outgoing), wanted, (text, features), strict=True
    ):
        assert torch.equal(grad, torch.zeros_like(leaf) if want is None else want)


IMAGE = IMAGE_TOKEN_INDEX


@st.composite
def batches(draw):
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    ids = draw(
        st.lists(
            st.lists(st.sampled_from([5, 6, 7, IMAGE]), min_size=length, max_size=length),
            min_size=rows,
            max_size=rows,
        )
    )
    mask = draw(
        st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=rows, max_size=rows)
    )
    mask[0][0] = True  # a batch of nothing has no width to compare
    slot_lengths = []
    for row, keep in zip(ids, mask, strict=True):
        images = sum(i == IMAGE and k for i, k in zip(row, keep, strict=True))
        slot_lengths += [draw(st.integers(1, 4)) for _ in range(images)] or [draw(st.integers(0, 4))]
    return ids, mask, slot_lengths


@settings(max_examples=200, deadline=None)
@given(batches(), st.one_of(st.none(), st.integers(1, 12)), st.sampled_from(["left", "right"]))
def test_any_batch_equals_the_reference(batch, max_length, side):
    check(*batch, max_length, side)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length", [None, 9, 4, 1])
def test_ragged_rows_text_only_rows_and_several_images(side, max_length):
    ids = [[1, IMAGE, 5, 6, 0], [1, 5, 6, 7, 8], [IMAGE, IMAGE, 3, IMAGE, 0], [1, 2, 0, 0, 0]]
    mask = [[True] * 4 + [False], [True] * 5, [True] * 4 + [False], [True] * 2 + [False] * 3]
    check(ids, mask, [4, 4, 2, 3, 4, 0], max_length, side)


def test_ids_that_equal_the_padding_id_stay_when_the_mask_keeps_them():
    plan = plan_splice(torch.tensor([[0, 0, 5]]), [0], torch.tensor([[1, 1, 1]]))
    assert plan.text_source.tolist() == [0, 1, 2]


def test_without_a_mask_all_ids_are_real():
    plan = plan_splice(torch.tensor([[0, IMAGE, 5], [1, 2, 3]]), [2, 0])
    assert plan.padded
    assert plan.attention_mask().tolist() == [[True] * 4, [True] * 3 + [False]]


def test_unused_features_get_a_zero_gradient_and_stay_in_the_graph():
    features = torch.randn(4, WIDTH, requires_grad=True)
    plan = plan_splice(torch.tensor([[1, 2]]), [4])
    out = splice_embeddings(plan, torch.randn(2, WIDTH), features)
    assert out.requires_grad
    out.sum().backward()
    assert torch.equal(features.grad, torch.zeros(4, WIDTH))


def test_frozen_text_gets_no_gradient():
    text, features = torch.randn(2, WIDTH), torch.randn(3, WIDTH, requires_grad=True)
    out = splice_embeddings(plan_splice(torch.tensor([[1, IMAGE, 2]]), [3]), text, features)
    out.sum().backward()
    assert text.grad is None
    assert torch.equal(features.grad, torch.ones(3, WIDTH))


def test_gradients_agree_with_finite_differences():
    plan = plan_splice(torch.tensor([[1, IMAGE, 2], [3, 4, IMAGE]]), [3, 2], max_length=3)
    text = torch.randn(len(plan.text_source), WIDTH, dtype=torch.float64, requires_grad=True)
    features = torch.randn(5, WIDTH, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t, f: splice_embeddings(plan, t, f), (text, features))


def test_the_text_decides_the_dtype():
    plan = plan_splice(torch.tensor([[1, IMAGE]]), [2])
    features = torch.randn(2, WIDTH, requires_grad=True)
    out = splice_embeddings(plan, torch.randn(1, WIDTH, dtype=torch.bfloat16), features)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert features.grad.dtype == torch.float32


def test_features_are_fetched_from_another_device():
    plan = plan_splice(torch.tensor([[1, IMAGE]]), [2])
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):  # the other one of a CPU
        splice_embeddings(plan, torch.randn(1, WIDTH), torch.randn(2, WIDTH, device="meta"))


@pytest.mark.parametrize("given_slots", [2, 4])
def test_too_few_and_surplus_images_are_counted_out(given_slots):
    ids = torch.tensor([[1, IMAGE, IMAGE], [1, 2, 3]])
    with pytest.raises(ValueError, match="pass one image per placeholder and a dummy") as error:
        plan_splice(ids, [2] * given_slots)
    assert "needs 3 images (2 <image> placeholders, and one unused slot for each of its 1" in str(error.value)
    assert f"but {given_slots} were given" in str(error.value)


def test_a_placeholder_without_its_image_is_an_error():
    with pytest.raises(ValueError, match="Image 1 of the batch is None, but an <image> placeholder"):
        plan_splice(torch.tensor([[1, IMAGE], [1, IMAGE]]), [2, 0])


def test_the_plan_reads_the_device_once(monkeypatch):
    """Host synchronisations do not grow with the number of rows: only one tensor is copied to the host."""
    copies = []
    original = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(self.shape) or original(self))
    plan_splice(torch.tensor([[1, IMAGE, 2]] * 8), [2] * 8)
    assert copies == [(8, 3)]
