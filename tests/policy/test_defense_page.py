"""The guide's table of defences and hosts is the one that the tests go through."""

from __future__ import annotations

from tests.contract.defense_table import on_the_page, rendered


def test_the_table_in_the_guide_is_the_tested_one():
    assert on_the_page() == rendered(), "run `python -m tests.contract.defense_table`"
