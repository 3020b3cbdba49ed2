"""The loss of every step of both stages, against upstream's training of the same model on the same data."""

from __future__ import annotations

import statistics

import pytest

TOLERANCE = 1e-4


@pytest.mark.parametrize("stage", [1, 2])
def test_every_step_has_upstreams_loss(runs, stage: int):
    ours, theirs = (runs[name, stage].losses for name in ("ours", "upstream"))
    assert len(ours) == len(theirs) == 20
    assert ours == pytest.approx(theirs, rel=TOLERANCE)
    learned = statistics.mean(theirs[:5]) - statistics.mean(theirs[-5:])
    assert learned > 50 * TOLERANCE * theirs[0], "a run that learns nothing compares only its first step"
