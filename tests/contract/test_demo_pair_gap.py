"""One pair alone: its gap is that of the pair among others, its curve that of stored hidden states."""

from __future__ import annotations

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from regap_patch.errors import MeasureError
from regap_patch.measure import centroids_by_layer, gap_of_pair, measure_gap
from tests.contract.host_rows import HF_LLAVA
from tests.contract.host_samples import BOS, EOS, IMG
from tests.contract.stored_states import batches, stored
from tests.contract.tiny_hosts import llava_configs

SAMPLES = [([BOS, IMG], [11, 12, 13, 14, EOS]), ([BOS, IMG], [21, 22, 23, EOS])]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(LlavaConfig(**llava_configs())).eval()


@pytest.fixture(scope="module")
def pairs():
    return batches(HF_LLAVA, SAMPLES)


def test_its_gap_is_that_of_the_pair_among_others(model, pairs):
    report = measure_gap(model, pairs, names=["one", "two"])
    assert [
        gap_of_pair(model, pairs[n], name=name) for n, name in enumerate(("one", "two"))
    ] == report.samples


def test_its_curve_is_that_of_stored_states(model, pairs):
    layers = stored(HF_LLAVA, model, SAMPLES, pairs)
    for number, pair in enumerate(pairs):
        curve = centroids_by_layer(model, pair)
        assert [row.layer for row in curve] == list(range(len(layers)))
        for row, (image, text) in zip(curve, layers, strict=True):
            gap = image[number].double().mean(0) - text[number].double().mean(0)
            assert row.centroid_l2 == pytest.approx(float(gap.norm()), rel=1e-6)
            assert row.text_norm == pytest.approx(float(text[number].double().norm(dim=1).mean()), rel=1e-6)


def test_without_a_picture_there_is_no_gap(model, pairs):
    blind = {"input_ids": torch.tensor([[BOS, 11, 12]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    for measure in (gap_of_pair, centroids_by_layer):
        with pytest.raises(MeasureError, match="image"):
            measure(model, blind)
