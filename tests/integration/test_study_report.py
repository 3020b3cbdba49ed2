"""`regap study report`, on a study whose files are written by code: what counts, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from regap_patch.cli import main
from regap_patch.study.branches import branches
from regap_patch.study.protocol import read_protocol
from regap_patch.study.store import Node
from tests.integration.written_study import written_study
from tests.unit.study_protocols import commit_all


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    written_study(root)
    return root


@pytest.fixture
def home(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(whole, tmp_path / "home"))


def report(home: Path) -> int:
    return main(
        ["study", "report", str(home / "protocol" / "toy.yaml"), "--output_path", str(home / "study")]
    )


def piece(home: Path, name: str) -> Node:
    nodes = branches(read_protocol(home / "protocol" / "toy.yaml"), home / "study" / "store")
    return next(node for node in nodes if node.name == name)


def read(home: Path, name: str) -> dict:
    return json.loads((home / "study" / name).read_text())


def test_the_command_prints_every_verdict_and_writes_the_same_files_again(home: Path, capsys):
    before = {path.name: path.read_bytes() for path in (home / "study").iterdir() if path.is_file()}
    assert report(home) == 0
    said = capsys.readouterr().out
    for name in ("gate", "claim A, mir", "claim B, arises", "claim C", "utility"):
        assert f"\n{name} " in f"\n{said}"
    assert "no primary result" not in said
    assert said.rstrip().endswith("report.html")
    for name in ("outcomes.csv", "training.csv", "analysis.json", "means.csv"):
        assert (home / "study" / name).read_bytes() == before[name], name


def test_a_study_is_reported_by_code_that_has_moved_on(home: Path, monkeypatch, capsys):
    """Another key for every piece: what was made under the old ones is still what the study found."""
    before = (home / "study" / "outcomes.csv").read_bytes()
    monkeypatch.setattr("regap_patch.study.store._digest_of", lambda code: "another")
    assert not piece(home, "main/llm-1/off/measures1").output.exists()
    assert report(home) == 0
    assert "no primary result" not in capsys.readouterr().out
    assert (home / "study" / "outcomes.csv").read_bytes() == before


def test_a_piece_by_other_code_does_not_stand_in_for_one_that_is_not_made(home: Path, monkeypatch):
    asked = piece(home, "main/llm-1/pairwise_l2/measures2").output
    monkeypatch.setattr("regap_patch.study.store._digest_of", lambda code: "another")
    shutil.move(asked, piece(home, "main/llm-1/pairwise_l2/measures2").output)
    assert report(home) == 0
    assert "main,1,pairwise_l2,stage2" not in (home / "study" / "outcomes.csv").read_text()


def test_a_piece_of_another_recipe_is_not_reported(home: Path, capsys):
    path = piece(home, "main/llm-1/base").output / "node.json"
    record = json.loads(path.read_text())
    record["recipe"]["seed"] = 77
    path.write_text(json.dumps(record))
    assert report(home) == 1
    assert "'main/llm-1/base' with recipe.seed 1 was to be reported, but" in capsys.readouterr().err


def test_an_edited_protocol_makes_all_of_it_exploratory(home: Path, capsys):
    path = home / "protocol" / "toy.yaml"
    path.write_text(path.read_text().replace("about: a", "about: another"))
    assert report(home) == 0
    assert "(no primary result)" in capsys.readouterr().out
    assert read(home, "analysis.json")["labels"]["primary"] == []
    assert read(home, "analysis.json")["claim_c"]["label"] == "exploratory"
    assert "was edited after its commit" in read(home, "provenance.json")["primary"]["why"]
    commit_all(home / "protocol", "the edit")
    assert report(home) == 0
    assert "another text" in read(home, "provenance.json")["primary"]["why"]
    assert "primary result can be reported" in (home / "study" / "report.html").read_text()


def test_an_exploratory_piece_may_be_missing_and_a_primary_one_may_not(home: Path, capsys):
    shutil.rmtree(piece(home, "main/llm-1/pairwise_l2/measures2").output)
    assert report(home) == 0
    rows = (home / "study" / "outcomes.csv").read_text()
    assert "main,1,pairwise_l2,stage1" in rows
    assert "main,1,pairwise_l2,stage2" not in rows
    shutil.rmtree(piece(home, "main/llm-7/regap/measures2").output)
    capsys.readouterr()
    assert report(home) == 1
    said = capsys.readouterr().err
    assert "'main/llm-7/regap/measures2' is not made yet" in said
    assert said.count("\n") == 1


def test_a_piece_that_is_not_what_its_record_says_is_not_reported(home: Path, capsys):
    gap = piece(home, "main/llm-3/off/measures1").output / "gap.json"
    gap.write_text(gap.read_text() + " ")
    assert report(home) == 1
    assert "gap.json had" in capsys.readouterr().err
