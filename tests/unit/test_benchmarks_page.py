"""`docs/benchmarks.md` says of every benchmark what its adapter says."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark_layouts import LAYOUTS

from regap_patch.safety.benchmarks import adapter_of

PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"


def row_of(name: str) -> str:
    facts = adapter_of(name).BENCHMARK
    layout = "<br>".join(facts.layout)
    cells = (f"`{name}`", facts.title, facts.licence, layout, facts.how_to_obtain, facts.prompt_rule)
    return f"| {' | '.join((*cells, facts.judge_gets))} |"


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_row_is_what_the_adapter_states(name: str):
    escaped = row_of(name).replace("<br>", "\0").replace("<", "&lt;").replace("\0", "<br>")
    assert escaped in PAGE.read_text().splitlines()
