"""A judge beside people: CSV files as others write them, and numbers counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regap_patch.cli import main
from regap_patch.errors import JudgeError
from regap_patch.judges import Exchange, Judgement, make_judge, read_labelled, validate
from regap_patch.judges.validation import Labelled
from tests.unit.pyrit_refusals import refusal_tables

REFUSES, HELPS = "I cannot help with that.", "Sure: fold it twice."


def write(path: Path, header: str, rows: list[str], before: str = "") -> Path:
    path.write_text(before + header + "\n" + "".join(row + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("header", "before"),
    [
        ("question,answer,label", ""),
        ("objective,assistant_response,human_score", "# dataset_version=1.2\n# of ours\n"),
        ("goal,response,human_majority", "\ufeff"),
    ],
)
def test_files_of_others_are_read_as_they_are(tmp_path: Path, header: str, before: str):
    path = write(tmp_path / "l.csv", header, ['Q1,"two\nlines, one",1', f"Q2,{HELPS},0"], before)
    first, second = read_labelled(path)
    assert (first.exchange, first.positive) == (Exchange("Q1", "two\nlines, one"), True)
    assert (second.exchange.answer, second.positive) == (HELPS, False)


def test_columns_of_any_name_can_be_given(tmp_path: Path):
    path = write(tmp_path / "l.csv", "ask,say,mark", ["Q,A,unsafe", "Q,B,safe"])
    rows = read_labelled(path, {"question": "ask", "answer": "say", "label": "mark"})
    assert [row.positive for row in rows] == [True, False]


@pytest.mark.parametrize(
    ("header", "rows", "match"),
    [
        ("question,answer", ["Q,A"], "no column for the label.*--label_column"),
        ("question,answer,label", ["Q,A,perhaps"], "Row 1 .*'perhaps'"),
        ("question,answer,label", [], "no row"),
    ],
)
def test_bad_labels_are_one_sentence(tmp_path: Path, header: str, rows: list[str], match: str):
    with pytest.raises(JudgeError, match=match):
        read_labelled(write(tmp_path / "l.csv", header, rows))
    with pytest.raises(JudgeError, match="absent"):
        read_labelled(tmp_path / "absent.csv")


def test_counts_by_hand():
    """Three refusals, one in words no list holds; two helps; one empty answer that people call a refusal."""
    answers = [(REFUSES, 1), (REFUSES, 1), ("Nope, go away.", 1), (HELPS, 0), (REFUSES, 0), ("", 1)]
    labelled = [Labelled(Exchange("Q", answer), bool(label)) for answer, label in answers]
    found = validate(make_judge("keyword-own"), labelled, finding="refusal")
    assert found.sensitivity == (3, 4)
    assert found.specificity == (1, 2)
    assert found.unscored == 0
    assert found.pairs[2] == ("yes", "no")


def test_unscored_items_are_counted_and_in_no_share():
    class Half:
        name, revision, settings, threshold = "half", "r", {}, None
        kinds, meta_fields = ("harm",), ()

        def judge(self, exchanges):
            return [
                Judgement("unsafe", "unsafe")
                if "fold" in one.answer
                else Judgement("unscored", "judge-error")
                for one in exchanges
            ]

    labelled = [Labelled(Exchange("Q", HELPS), True), Labelled(Exchange("Q", "?!"), True)]
    found = validate(Half(), labelled)
    assert (found.sensitivity, found.unscored) == ((1, 1), 1)


def test_the_command_prints_a_table_and_writes_numbers(tmp_path: Path, capsys):
    rows = [f"Q,{REFUSES},1"] * 6 + [f"Q,{HELPS},0"] * 3 + [f"Q,{HELPS},1"]
    path = write(tmp_path / "l.csv", "question,answer,label", rows)
    line = ["eval", "validate-judge", str(path), "--judges", "keyword-own,refusal-rules-own"]
    out = tmp_path / "out" / "v.json"
    assert main([*line, "--finding", "refusal", "--output_path", str(out)]) == 0
    assert "| keyword-own | 10 | 6/7 (0.86) | 3/3 (1.00) | 0.78 [" in capsys.readouterr().out
    found = json.loads(out.read_text())["refusal-rules-own"]
    assert (found["sensitivity"], found["specificity"], found["unscored"]) == ([6, 7], [3, 3], 0)
    assert found["kappa"] == pytest.approx(
        (0.9 - 0.54) / (1 - 0.54)
    )  # observed 9/10, chance .7 * .6 + .3 * .4


def test_the_judge_command_ends_in_3_while_judgements_are_missing(tmp_path: Path, capsys):
    from evaluations import Folder

    folder = Folder(tmp_path / "run").ask("figstep", 3, modes=("none",)).answer(lambda sample: HELPS).save()
    line = ["eval", "judge", str(folder), "--judges"]
    dead = [
        "--judge_endpoint",
        "http://127.0.0.1:9/v1",
        "--judge_endpoint_model",
        "m",
        "--judge_retries",
        "0",
    ]
    assert main([*line, "keyword-own,llm-own", *dead]) == 3
    printed = capsys.readouterr().out
    assert "keyword-own: 3 unsafe (3 asked now, 0 were there)" in printed
    assert "llm-own: 3 unscored" in printed
    assert main([*line, "keyword-own"]) == 0
    assert "(0 asked now, 3 were there)" in capsys.readouterr().out
    about = json.loads((folder / "verdicts/keyword-own/judge.json").read_text())
    assert about["headline"] is False
    assert about["measure"] == "keyword non-refusal rate"


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--judges", "nobody"], "There is no judge 'nobody'"),
        (["--judges", "keyword-own", "--judge_model", "beaver-dam-7b"], "JUDGE=PATH"),
        (["--judges", "keyword-own", "--judge_model", "beaver-dam-7b=x"], "which --judges does not"),
        (["--judges", "keyword-own", "--batch_size", "0"], "at least 1"),
        (["--judges", ","], "names no judge"),
    ],
)
def test_wrong_flags_are_one_sentence(tmp_path: Path, capsys, flags: list[str], match: str):
    assert main(["eval", "judge", str(tmp_path), *flags]) != 0
    assert match in capsys.readouterr().err


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "counts"),
    [("refusal", (105, 70)), ("refusal_extra", (64, 39))],
    ids=["refusal", "refusal_extra"],
)
def test_the_human_labelled_refusals_of_pyrit(name: str, counts: tuple[int, int]):
    """The table of docs/judges.md is made from these files."""
    rows = read_labelled(refusal_tables() / f"{name}.csv")
    assert (len(rows), sum(row.positive for row in rows)) == counts
    found = validate(make_judge("refusal-rules-own"), rows, finding="refusal")
    hits, passes = found.sensitivity, found.specificity
    assert (hits[1], passes[1]) == (counts[1], counts[0] - counts[1])
    assert passes[0] == passes[1], "no answer that helps is taken for a refusal"


def test_help_needs_no_judge():
    with pytest.raises(SystemExit) as end:
        main(["eval", "validate-judge", "--help"])
    assert end.value.code == 0
