"""The reduction that follows the language model's, and how alpha is measured and kept."""

from __future__ import annotations

import json

import pytest
import torch

from regap_patch.errors import CalibrationError
from regap_patch.gap.calibration import Calibration
from regap_patch.gap.reduction import reduce_like_lm, supervised_targets

LABELS = torch.tensor([[5, 6, 7, -100], [-100, -100, 4, 3], [-100, -100, -100, -100]])
GAPS = torch.tensor([2.0, 8.0, 100.0])
VALID = torch.tensor([True, True, False])


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_the_first_position_is_no_target():
    assert supervised_targets(LABELS).tolist() == [2, 2, 0]


def test_reduction_equals_cross_entropy_of_constant_loss():
    """Give every target of sample b the loss R_b: torch's own mean over targets must be the reduced gap."""
    targets = torch.tensor([3, 1, 2])
    values = torch.cat([gap.repeat(count) for gap, count in zip(GAPS * VALID, targets.tolist(), strict=True)])
    assert reduce_like_lm(GAPS, VALID, targets).item() == pytest.approx(values.mean().item())
    for items in (12, torch.tensor(12)):
        assert reduce_like_lm(GAPS, VALID, targets, items).item() == pytest.approx(values.sum().item() / 12)


def test_a_batch_without_targets_has_no_gap():
    assert reduce_like_lm(GAPS, VALID, torch.zeros(3, dtype=torch.int64)).item() == 0.0


def test_shares_of_a_step_add_up_however_it_is_split():
    generator = torch.Generator().manual_seed(0)
    gaps = torch.rand(8, generator=generator, dtype=torch.float64)
    valid = torch.rand(8, generator=generator) > 0.3
    targets = torch.randint(1, 9, (8,), generator=generator)
    whole = reduce_like_lm(gaps, valid, targets)
    for size in (1, 2, 4):
        parts = [
            reduce_like_lm(gaps[i : i + size], valid[i : i + size], targets[i : i + size], targets.sum())
            for i in range(0, 8, size)
        ]
        torch.testing.assert_close(sum(parts), whole)


def test_alpha_is_the_ratio_of_means_and_then_frozen():
    calibration = Calibration(weight=0.5, steps=2)
    calibration.observe(number(6.0), number(2.0))
    assert calibration.alpha is None
    calibration.observe(number(4.0), number(3.0))
    assert calibration.alpha == 0.5 * 10.0 / 5.0
    calibration.observe(number(1e9), number(1.0))
    assert calibration.alpha == 1.0
    assert calibration.seen == 2
    state = calibration.state_dict()
    assert state["lm"] == {"sum": 10.0, "mean": 5.0, "min": 4.0, "max": 6.0}
    assert state["gap"] == {"sum": 5.0, "mean": 2.5, "min": 2.0, "max": 3.0}


def test_gradient_ratio_is_a_ratio_of_norms():
    calibration = Calibration(method="gradient", weight=2.0, steps=1)
    calibration.observe(number(9.0), number(4.0))
    assert calibration.alpha == 3.0


def test_resuming_through_json_is_exact():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(5, 2, generator=generator, dtype=torch.float64)
    whole, first = Calibration(steps=5), Calibration(steps=5)
    for lm, gap in values:
        whole.observe(lm, gap)
    for lm, gap in values[:3]:
        first.observe(lm, gap)
    resumed = Calibration()
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for lm, gap in values[3:]:
        resumed.observe(lm, gap)
    assert resumed.state_dict() == whole.state_dict()
    assert resumed.alpha == whole.alpha


def test_nothing_to_measure_is_an_error():
    with pytest.raises(CalibrationError, match="the gap's to 0; check"):
        Calibration(steps=1).observe(number(1.0), number(0.0))
    with pytest.raises(CalibrationError, match="resume with the settings"):
        Calibration(weight=2.0).load_state_dict(Calibration(weight=1.0).state_dict())
