"""Closed forms: numbers that were worked out away from this code."""

from __future__ import annotations

import pytest
import torch

from regap_patch.gap.losses import LOSSES, gap_loss
from regap_patch.gap.rows import ModalityRows
from regap_patch.gap.statistics import gap_statistics

# V[i, k] = 2 sin(1 + 3i + 7k) + k, T[j, k] = 0.5 cos(2 + 5j + 11k)
GOLDEN = {"centroid_l2": 2.181667, "centroid_sq": 4.759669, "pairwise_l2": 3.185400, "pairwise_sq": 13.184935}
IMAGE_TRACE, TEXT_TRACE = 8.048985, 0.376280
IMAGE_NORMS = [4.7538, 1.8812, 4.9099, 1.4391, 4.8991, 0.9009]


def golden_rows(dtype: torch.dtype = torch.float64) -> ModalityRows:
    i, k = torch.meshgrid(torch.arange(6.0), torch.arange(3.0), indexing="ij")
    image = 2 * torch.sin((1 + 3 * i + 7 * k).double()) + k
    j, k = torch.meshgrid(torch.arange(5.0), torch.arange(3.0), indexing="ij")
    text = 0.5 * torch.cos((2 + 5 * j + 11 * k).double())
    return ModalityRows(
        image[None].to(dtype),
        torch.ones(1, 6, dtype=torch.bool),
        text[None].to(dtype),
        torch.ones(1, 5, dtype=torch.bool),
    )


@pytest.mark.parametrize(("name", "expected"), GOLDEN.items())
def test_losses(name: str, expected: float):
    assert gap_loss(name, golden_rows()).item() == pytest.approx(expected, abs=6e-7)


def test_statistics():
    stats = gap_statistics(golden_rows(), pairwise=True)
    assert stats.image_trace.item() == pytest.approx(IMAGE_TRACE, abs=6e-7)
    assert stats.text_trace.item() == pytest.approx(TEXT_TRACE, abs=6e-7)
    assert stats.centroid_l2.item() == pytest.approx(GOLDEN["centroid_l2"], abs=6e-7)
    assert stats.pairwise_l2.item() == pytest.approx(GOLDEN["pairwise_l2"], abs=6e-7)
    assert stats.image_norm.item() == pytest.approx(sum(IMAGE_NORMS) / 6, abs=5e-5)


def test_pairwise_sq_is_centroid_sq_and_both_traces():
    total = GOLDEN["centroid_sq"] + IMAGE_TRACE + TEXT_TRACE
    assert GOLDEN["pairwise_sq"] == pytest.approx(total, abs=2e-6)
    stats = gap_statistics(golden_rows())
    assert gap_loss("pairwise_sq", golden_rows()).item() == pytest.approx(stats.pairwise_sq.item(), rel=1e-12)


def test_padding_and_slots_change_nothing():
    """The same six rows in three uneven slots, beside a sample without text; junk behind the mask."""
    one = golden_rows()
    image = torch.full((4, 4, 3), 1e3, dtype=torch.float64)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    start = 0
    for slot, count in ((0, 3), (2, 1), (3, 2)):
        image[slot, :count] = one.image[0, start : start + count]
        mask[slot, :count] = True
        start += count
    image[1] = 7.0
    mask[1] = True
    text = torch.full((2, 9, 3), -1e3, dtype=torch.float64)
    text[1, 2:7] = one.text[0]
    text_mask = torch.zeros(2, 9, dtype=torch.bool)
    text_mask[1, 2:7] = True
    rows = ModalityRows(image, mask, text, text_mask, torch.tensor([1, 0, 1, 1]))
    assert rows.valid().tolist() == [False, True]
    assert rows.image_count().tolist() == [4, 6]
    for name in LOSSES:
        got = gap_loss(name, rows)
        assert got[1].item() == pytest.approx(gap_loss(name, one).item(), rel=1e-12)
        assert got.isfinite().all()
    for name, value in gap_statistics(rows, pairwise=True).as_dict().items():
        expected = gap_statistics(one, pairwise=True).as_dict()[name]
        assert value[1].item() == pytest.approx(expected.item(), rel=1e-12), name
