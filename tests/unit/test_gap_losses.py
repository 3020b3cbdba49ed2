"""Gradients, invariances, precision, and what a training forward may not do."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regap_patch.errors import ConfigError
from regap_patch.gap.catalog import LOSSES_IN_WORDS
from regap_patch.gap.losses import LOSSES, gap_loss
from regap_patch.gap.rows import ModalityRows
from regap_patch.gap.statistics import gap_statistics
from tests.unit.no_waiting import NoWaiting

NAMES = [name for name in LOSSES if name != "off"]


def ragged_rows(seed: int = 0, *, dtype: torch.dtype = torch.float64, width: int = 5) -> ModalityRows:
    """Three samples, four slots: one sample owns two, one text is a single token, masks have holes."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(4, 6, width, generator=generator, dtype=torch.float64) * 2 + 1
    text = torch.randn(3, 7, width, generator=generator, dtype=torch.float64)
    image_mask = torch.ones(4, 6, dtype=torch.bool)
    image_mask[1, 4:] = False
    image_mask[2, 0] = False
    text_mask = torch.zeros(3, 7, dtype=torch.bool)
    text_mask[0, 1:5] = True
    text_mask[1, 3] = True
    text_mask[2, [0, 2, 6]] = True
    return ModalityRows(image.to(dtype), image_mask, text.to(dtype), text_mask, torch.tensor([0, 1, 0, 2]))


def by_hand(name: str, image: Tensor, text: Tensor) -> float:
    """Plain Python over the pairs of one sample: nothing in common with the implementation."""
    v, t = image.tolist(), text.tolist()
    pairs = [math.dist(a, b) for a in v for b in t]
    means = [[sum(column) / len(cloud) for column in zip(*cloud, strict=True)] for cloud in (v, t)]
    norms = [sum(math.hypot(*row) for row in cloud) / len(cloud) for cloud in (v, t)]
    return {
        "centroid_l2": math.dist(*means),
        "centroid_sq": math.dist(*means) ** 2,
        "pairwise_l2": sum(pairs) / len(pairs),
        "pairwise_sq": sum(pair**2 for pair in pairs) / len(pairs),
        "norm_match": (norms[0] - norms[1]) ** 2,
    }[name]


@pytest.mark.parametrize("name", NAMES)
def test_equals_a_loop_over_pairs(name: str):
    rows = ragged_rows()
    got = gap_loss(name, rows)
    for sample in range(3):
        image = rows.image[rows.sample == sample][rows.image_mask[rows.sample == sample]]
        expected = by_hand(name, image, rows.text[sample][rows.text_mask[sample]])
        assert got[sample].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["ragged", "coincident means", "coincident clouds", "no text", "no image"])
def test_gradcheck(name: str, case: str):
    rows = ragged_rows()
    image, image_mask, text, text_mask = rows.image, rows.image_mask, rows.text, rows.text_mask
    if case == "coincident means":
        image = image - rows.to_slots(rows.image_average(image) - rows.text_average(text))[:, None]
    elif case == "no text":
        text_mask = torch.zeros_like(text_mask)
    elif case == "no image":
        image_mask = torch.zeros_like(image_mask)
    elif case == "coincident clouds":  # every image row is the one text row: all distances are 0
        text = text[:, :1].expand_as(text).contiguous()
        image = text[rows.sample][:, :6].contiguous()
        if name == "pairwise_l2":  # the root bends within 1e-6 of 0, nearer than finite differences can look
            image.requires_grad_()
            gap_loss(name, ModalityRows(image, image_mask, text, text_mask, rows.sample)).sum().backward()
            assert image.grad.abs().max() < 1e-3
            return

    def loss(values: Tensor) -> Tensor:
        return gap_loss(name, ModalityRows(values, image_mask, text, text_mask, rows.sample))

    assert torch.autograd.gradcheck(loss, image.clone().requires_grad_())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), name=st.sampled_from(NAMES))
def test_rotation_and_permutation_change_nothing(seed: int, name: str):
    rows = ragged_rows(seed)
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    turned = ModalityRows(
        rows.image @ rotation, rows.image_mask, rows.text @ rotation, rows.text_mask, rows.sample
    )
    torch.testing.assert_close(gap_loss(name, turned), gap_loss(name, rows), rtol=1e-9, atol=1e-9)

    i, j = torch.randperm(6, generator=generator), torch.randperm(7, generator=generator)
    slots = torch.randperm(4, generator=generator)
    shuffled = ModalityRows(
        rows.image[slots][:, i],
        rows.image_mask[slots][:, i],
        rows.text[:, j],
        rows.text_mask[:, j],
        rows.sample[slots],
    )
    torch.testing.assert_close(gap_loss(name, shuffled), gap_loss(name, rows), rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_identity_and_order(seed: int):
    """pairwise_sq = centroid_sq + both traces; centroid_l2 <= pairwise_l2 <= sqrt(pairwise_sq)."""
    rows = ragged_rows(seed)
    stats = gap_statistics(rows)
    sq = {name: gap_loss(name, rows) for name in NAMES}
    torch.testing.assert_close(
        sq["pairwise_sq"], sq["centroid_sq"] + stats.image_trace + stats.text_trace, rtol=1e-9, atol=1e-9
    )
    assert (sq["centroid_l2"] <= sq["pairwise_l2"] + 1e-9).all()
    assert (sq["pairwise_l2"] <= sq["pairwise_sq"].sqrt() + 1e-9).all()


def test_centroid_pull_is_the_same_for_every_image_row():
    rows = ragged_rows()
    image = rows.image.clone().requires_grad_()
    gap_loss("centroid_sq", ModalityRows(image, rows.image_mask, rows.text, rows.text_mask, rows.sample))[
        1
    ].backward()
    assert image.grad[1, :4].std(0).max() < 1e-12
    assert image.grad[[0, 2, 3]].abs().max() == 0
    assert image.grad[1, 4:].abs().max() == 0, "padding is not pulled"


def test_a_bias_shift_zeroes_the_centroid_gap():
    """What a projector's last bias can do alone: one sample, one shift."""
    rows = ragged_rows()
    shift = rows.text_average(rows.text) - rows.image_average(rows.image)
    moved = ModalityRows(
        rows.image + rows.to_slots(shift)[:, None], rows.image_mask, rows.text, rows.text_mask, rows.sample
    )
    assert gap_statistics(moved).centroid_l2.max() < 1e-12
    assert gap_statistics(moved).image_trace.allclose(gap_statistics(rows).image_trace)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_rows_are_averaged_in_float32(name: str):
    """Also under autocast: equal to float64 on the same (rounded) rows; bf16 arithmetic misses by 1e-3."""
    rows = ragged_rows(dtype=torch.bfloat16, width=256)
    exact = ModalityRows(
        rows.image.double(), rows.image_mask, rows.text.double(), rows.text_mask, rows.sample
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = gap_loss(name, rows)
        stats = gap_statistics(rows, pairwise=True)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), gap_loss(name, exact), rtol=2e-5, atol=1e-6)
    for key, value in gap_statistics(exact, pairwise=True).as_dict().items():
        torch.testing.assert_close(stats.as_dict()[key].double(), value, rtol=2e-5, atol=1e-6)


def test_the_guard_itself_sees_waiting():
    values = torch.randn(4)
    for wait in (values[0].item, lambda: values[values > 0], values.nonzero):
        with NoWaiting(), pytest.raises(AssertionError, match="waits"):
            wait()


@pytest.mark.parametrize("name", list(LOSSES))
def test_no_waiting_for_the_device(name: str):
    rows = ragged_rows()
    image = rows.image.clone().requires_grad_()
    with NoWaiting():
        rows = ModalityRows(image, rows.image_mask, rows.text, rows.text_mask, rows.sample)
        gap_statistics(rows, pairwise=True)
        loss = gap_loss(name, rows)
        if name != "off":
            loss.sum().backward()


@pytest.mark.parametrize("name", list(LOSSES))
def test_meta_tensors(name: str):
    rows = ragged_rows()
    rows = ModalityRows(
        *(part.to("meta") for part in (rows.image, rows.image_mask, rows.text, rows.text_mask)),
        rows.sample.to("meta"),
    )
    assert gap_loss(name, rows).shape == (3,)
    assert all(value.shape == (3,) for value in gap_statistics(rows, pairwise=True).as_dict().values())


def test_the_catalog_describes_every_loss():
    assert list(LOSSES_IN_WORDS) == list(LOSSES)


def test_bad_rows_and_names_are_refused():
    rows = ragged_rows()
    with pytest.raises(ConfigError, match=r"'mmd' is not known: choose one of centroid_l2"):
        gap_loss("mmd", rows)
    with pytest.raises(ValueError, match="one width D"):
        ModalityRows(rows.image[..., :2], rows.image_mask, rows.text, rows.text_mask, rows.sample)
    with pytest.raises(ValueError, match="one entry for each row"):
        ModalityRows(rows.image, rows.image_mask[:, :2], rows.text, rows.text_mask, rows.sample)
    with pytest.raises(ValueError, match="each sample owns one slot"):
        ModalityRows(rows.image, rows.image_mask, rows.text, rows.text_mask)
