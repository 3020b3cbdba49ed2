"""`regap study`: what it plans, what it refuses, and that a plan makes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from regap_patch.cli import main
from regap_patch.study import branches, study_run
from tests.unit.study_pieces import study_of
from tests.unit.study_protocols import write_protocol


def run(path: Path, *words: str) -> int:
    return main(["study", "run", str(path), "--output_path", str(path.parent / "study"), *words])


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A protocol whose pieces take no time."""
    monkeypatch.setattr(branches, "branches", lambda protocol, store: study_of(store))
    return write_protocol(tmp_path)


def test_a_dry_run_of_a_protocol_counts_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write_protocol(tmp_path)
    assert run(path, "--dry-run", "--jobs", "2") == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.endswith("table")}
    assert rows["base"][1:3] == ["12", "0"], "ten confirmatory LLMs and two of the pilot"
    assert rows["aligned"][1:3] == ["14", "0"], "two of them also with another breadth"
    assert rows["tower"][1:3] == ["1", "0"]
    assert "No primary result can be reported" in said
    assert "With --jobs 2: about" in said
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_is_made_and_then_planned_as_done(toy: Path, capsys: pytest.CaptureFixture[str]):
    assert run(toy, "--only", "pilot", "--llms", "9", "--jobs", "2") == 0
    assert "Now: regap study report" in capsys.readouterr().out
    assert run(toy, "--dry-run", "--only", "pilot") == 0
    said = capsys.readouterr().out
    rows = [line.split()[:3] for line in said.splitlines() if "made here" in line]
    assert rows == [["tower", "1", "1"], ["base", "1", "1"], ["stage1", "2", "2"], ["measures", "2", "2"]]
    assert "With --jobs" in said
    assert "about 0 min and 0 MB" in said


def test_two_studies_share_a_store(toy: Path, capsys: pytest.CaptureFixture[str]):
    store = toy.parent / "shared"
    assert run(toy, "--store_path", str(store), "--only", "pilot") == 0
    assert (toy.parent / "study" / "store").resolve() == store
    assert run(toy, "--only", "pilot") == 0, "the link says where"
    assert "6 of 6 pieces lie in" in capsys.readouterr().out
    other = toy.parent / "other"
    words = ["study", "run", str(toy), "--output_path", str(other), "--store_path", str(store)]
    assert main(words) == 0
    assert study_run.read_study(other)["branches"]["main/tower"].startswith("store/tower-")
    capsys.readouterr()
    assert run(toy, "--store_path", str(toy.parent / "third")) == 1
    assert "is there already, and a study has one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--llms", "3"], "There is no LLM 3 in this study: Known are 1, 2, 9."),
        (["--llms", "one"], "--llms holds 'one': name seeds"),
        (
            ["--llms", "9", "--only", "primary"],
            "The study has no primary part for the LLMs 9: `--dry-run` without",
        ),
        (["--jobs", "-1"], "--jobs is -1: at least one piece"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(toy: Path, capsys, words: list[str], sentence: str):
    assert run(toy, *words) == 1
    said = capsys.readouterr().err
    assert said.startswith("regap study: ")
    assert sentence in said
    assert said.count("\n") == 1
    assert not (toy.parent / "study").exists()


def test_a_protocol_with_an_unknown_arm_or_key_is_one_sentence(tmp_path: Path, capsys):
    assert run(write_protocol(tmp_path, ("[pairwise_l2]", "[pairwse_l2]"))) == 1
    assert "no arm 'pairwse_l2': did you mean pairwise_l2?" in capsys.readouterr().err
    assert run(write_protocol(tmp_path, ("tower:", "towr:"))) == 1
    assert "no key 'towr' in the protocol toy.yaml: did you mean tower?" in capsys.readouterr().err


def test_a_folder_that_cannot_be_one_is_one_sentence(toy: Path, capsys):
    (toy.parent / "study").write_text("a file")
    assert run(toy) == 1
    said = capsys.readouterr().err
    assert "study" in said
    assert "Traceback" not in said


def test_a_report_needs_a_study(toy: Path, capsys: pytest.CaptureFixture[str]):
    words = ["study", "report", str(toy), "--output_path", str(toy.parent / "study")]
    assert main(words) == 1
    assert "study.json cannot be read" in capsys.readouterr().err


def test_help_teaches_the_order(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(["study", "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert (
        said.index("commit it")
        < said.index("--dry-run")
        < said.index("--jobs 2")
        < said.index("study report")
    )
