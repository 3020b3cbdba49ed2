"""What the process grows by while MIR is taken, as the bench measures it, against depth."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "scripts/bench/measure_memory.py"


@pytest.mark.full
def test_memory_does_not_grow_with_depth():
    in_a_process = runpy.run_path(str(BENCH))["in_a_process"]
    shallow, deep = (in_a_process(layers) for layers in (8, 32))
    for name, value in (("8 layers", shallow), ("32 layers", deep)):
        ratio = value["store_everything"] / value["collector_peak"]
        print(
            f"\n{name}: held {value['collector_peak']}, grown {value['grown']} bytes, {ratio:.1f} times less"
        )
    assert deep["collector_peak"] == pytest.approx(shallow["collector_peak"], rel=0.1)
    assert deep["grown"] == pytest.approx(shallow["grown"], rel=0.1)
    assert deep["grown"] < deep["store_everything"] / 10
    stored = in_a_process(8, "--store")
    assert stored["mir"] == shallow["mir"]
    assert stored["grown"] > shallow["store_everything"]
