"""Where a page says that a test shows something, there is that test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMPLAINTS = 15


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_exist(page: Path):
    for file, name in NAMED.findall(page.read_text()):
        assert (ROOT / file).is_file(), f"{page.name} names a test of {file}"
        assert name in names_in(ROOT / file), f"{page.name} names {file}::{name}"


def test_every_complaint_has_a_test_or_a_reason():
    text = (ROOT / "docs" / "from-upstream.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", text, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, COMPLAINTS + 1))
    for number, _, evidence in rows:
        assert NAMED.search(evidence) or "Not" in evidence, f"complaint {number}: no test and no reason"
