"""The example of a host of one's own: short, runs, and is found when a package registers it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from regap_patch import ReGapConfig, apply_regap
from regap_patch.errors import UnknownHostError

EXAMPLE = Path(__file__).parents[2] / "playground/examples/add_a_host.py"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("add_a_host", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "add_a_host", module)
    spec.loader.exec_module(module)
    return module


def test_it_is_short_and_closes_the_gap(example):
    assert len(EXAMPLE.read_text().splitlines()) <= 60
    start, end = example.main()
    assert end < 0.5 * start


def test_a_package_that_registers_it_is_enough(example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UnknownHostError, match="captioner looked for bridge"):
        apply_regap(example.Captioner().eye, host=example.HOST)
    with pytest.raises(UnknownHostError, match="pass a Host of your own as `host=`"):
        apply_regap(example.Captioner())
    installed = tmp_path / "captioner-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: captioner\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[regap_patch.hosts]\ncaptioner = add_a_host:HOST\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert apply_regap(example.Captioner(), ReGapConfig(alpha=1.0)).host is example.HOST
