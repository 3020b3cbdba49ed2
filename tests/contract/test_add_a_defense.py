"""The example of a defence of one's own: short, runs, and is found when a package registers it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from regap_patch.cli import main
from regap_patch.defenses import find_defense
from regap_patch.errors import ConfigError
from tests.unit.evaluation_items import make_items

EXAMPLE = Path(__file__).parents[2] / "playground/examples/add_a_defense.py"


@pytest.fixture
def example(monkeypatch):
    spec = importlib.util.spec_from_file_location("add_a_defense", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "add_a_defense", module)
    spec.loader.exec_module(module)
    return module


def test_it_is_short_and_refuses(example):
    assert len(EXAMPLE.read_text().splitlines()) <= 40
    assert example.main() == ["Hello?", "I cannot help with that."]


def test_a_package_that_registers_it_is_enough(example, llava_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="'gate' was asked for, but there is none of that name"):
        find_defense("gate")
    installed = tmp_path / "site/gate-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: gate\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[regap_patch.defenses]\ngate = add_a_defense:Gate\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert main(["defense", "list"]) == 0
    assert "gate" in capsys.readouterr().out
    data = make_items(tmp_path / "custom", 4)
    line = ["eval", "run", "--model", str(llava_folder), "--tasks", f"custom={data}", "--device", "cpu"]
    line += ["--image_mode", "none,real", "--gen_kwargs", "max_new_tokens=4", "--batch_size", "2"]
    line += ["--defense", "gate+self_reminder", "--defense_args", "gate.stop=blorp 3"]
    assert main([*line, "--output_path", str(tmp_path / "run")]) == 0
    assert "The defence gate fired on 2 of 8 answers (none 1 of 4, real 1 of 4)." in capsys.readouterr().out
    rows = [
        json.loads(answer)
        for part in (tmp_path / "run/answers").rglob("*.jsonl")
        for answer in part.read_text().splitlines()
    ]
    refused = {row["uid"] for row in rows if row["text"] == "I cannot help with that."}
    assert refused == {"custom/test/003"}
    made = json.loads((tmp_path / "run/manifest.json").read_text())["target"]["defenses"][0]
    assert made == {"name": "gate", "stop": "blorp 3"}
