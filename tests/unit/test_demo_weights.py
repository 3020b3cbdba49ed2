"""Weights that two models have in common are held once; the reference of a gap is read or refused."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from regap_patch.demo.opening import Opening
from regap_patch.demo.reference import find_reference
from regap_patch.demo.shared_weights import share_weights
from regap_patch.errors import DemoError


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.projector = nn.Linear(4, 6)
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.BatchNorm1d(6)])
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids, features):
        return self.head(self.layers[1](self.layers[0](self.embed(ids) + self.projector(features))))


def pair() -> tuple[Toy, Toy]:
    torch.manual_seed(0)
    first = Toy().eval()
    second = copy.deepcopy(first)
    with torch.no_grad():
        second.projector.weight += 1
    return first, second


def places(model: nn.Module) -> set[int]:
    return {value.data_ptr() for value in (*model.parameters(), *model.buffers())}


def test_only_the_projector_is_held_twice():
    first, second = pair()
    asked = torch.arange(8) % 11, torch.randn(8, 4)
    before = first(*asked), second(*asked)
    found = share_weights(first, second)
    assert found.own == ("projector.weight",)
    assert found.bytes_own == 4 * 24
    assert places(second) - places(first) == {second.projector.weight.data_ptr()}
    assert second.head.weight is second.embed.weight
    assert torch.equal(first(*asked), before[0])
    assert torch.equal(second(*asked), before[1])


def test_models_of_other_shapes_share_nothing_wrong():
    first, _ = pair()
    other = nn.Sequential(nn.Linear(4, 6))
    found = share_weights(first, other)
    assert found.bytes_shared == 0
    assert found.own == ("0.weight", "0.bias")
    half = copy.deepcopy(first).bfloat16()
    assert share_weights(first, half).bytes_own > 0
    assert half.embed.weight.dtype == torch.bfloat16


class Loading:
    def __init__(self, model: nn.Module) -> None:
        self.model, self.device = model, "cpu"

    def loaded(self):
        return self.model, None


def test_the_second_that_is_opened_uses_the_firsts_weights():
    first, second = pair()
    opening = Opening()
    kept = opening.open(lambda: Loading(first))
    opening.open(lambda: Loading(second))
    assert opening.shared.own == ("projector.weight",)
    assert kept.model.embed.weight is second.embed.weight


def test_a_model_that_is_gone_lends_nothing():
    opening = Opening()
    opening.open(lambda: Loading(pair()[0]))
    opening.open(lambda: Loading(pair()[1]))
    assert opening.shared is None


def test_a_target_without_weights_is_only_opened():
    target = object()
    assert Opening().open(lambda: target) is target


def gap_file(path, values):
    rows = [{"name": str(value), "centroid_l2": value, "pairwise_sq": 10 * value} for value in values]
    path.write_text(json.dumps({"schema": "regap.gap/1", "samples": rows}))
    return path


def test_a_band_from_what_regap_gap_wrote(tmp_path):
    gap_file(tmp_path / "gap.json", [float(value) for value in range(101)])
    (tmp_path / "regap.json").write_text(json.dumps({"gap": {"end": {"centroid_l2": 1.0}}}))
    reference = find_reference(str(tmp_path))
    band = reference.bands["centroid_l2"]
    assert (band.low, band.middle, band.high) == pytest.approx((5.0, 50.0, 95.0))
    assert reference.bands["pairwise_sq"].middle == pytest.approx(500.0)
    assert "101 pictures" in reference.source
    assert [band.place(value) for value in (4.0, 50.0, 96.0)] == [
        "below the band",
        "within the band",
        "above the band",
    ]
    other = find_reference(str(tmp_path), gap_file(tmp_path / "other.json", [1.0, 2.0, 3.0]))
    assert other.bands["centroid_l2"].middle == 2.0


def test_a_training_run_gives_a_mean_without_a_band(tmp_path):
    (tmp_path / "regap.json").write_text(
        json.dumps({"gap": {"end": {"centroid_l2": 2.0, "pairwise_sq": 8.0}}})
    )
    reference = find_reference(str(tmp_path))
    band = reference.bands["centroid_l2"]
    assert (band.low, band.middle, band.high) == (None, 2.0, None)
    assert band.place(3.0) == "1.50 times the mean"
    assert "last training steps" in reference.source


def test_without_a_reference_there_is_none(tmp_path):
    assert find_reference(str(tmp_path)) is None
    assert find_reference("http://localhost:1/v1") is None


@pytest.mark.parametrize(
    "text", ["torn {", "{}", '{"gap": {}}', '{"samples": []}', '{"samples": [{"name": "x"}]}', "[]"]
)
def test_a_file_without_a_gap_is_refused(tmp_path, text):
    file = tmp_path / "gap.json"
    file.write_text(text)
    with pytest.raises(DemoError, match=r"gap\.json"):
        find_reference(str(tmp_path))
