"""The examples run, and each of them closes the gap."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from regap_patch.report import read_run

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "playground" / "examples"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Import an example as Python would if it were started: its folder comes first."""
    monkeypatch.syspath_prepend(EXAMPLES)
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


def test_they_are_short():
    for path in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.sh")):
        assert len(path.read_text().splitlines()) <= 60, path.name


def test_three_lines_in_a_script_with_a_trainer(load, tmp_path: Path):
    start, end = load("three_lines_trainer").main(str(tmp_path))
    assert end < 0.5 * start
    assert json.loads((tmp_path / "regap.json").read_text())["alpha"] > 0


def test_plain_loop(load, capsys: pytest.CaptureFixture[str]):
    start, end = load("plain_loop").main()
    assert end < 0.5 * start
    assert "GapPatch(LlavaForConditionalGeneration" in capsys.readouterr().out


def test_launcher_in_front_of_a_script_that_knows_nothing_of_it(tmp_path: Path):
    subprocess.run(
        ["bash", str(EXAMPLES / "launcher.sh"), str(tmp_path)],
        env=os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        check=True,
        timeout=300,
    )
    off, on = (read_run(tmp_path / arm).series["centroid_l2"] for arm in ("off", "on"))
    assert off[0] == on[0]
    assert on[-1][1] < 0.5 * off[-1][1]
    assert (tmp_path / "regap.png").read_bytes().startswith(b"\x89PNG")
