"""Utility items: scored by their benchmark's rule, and what the run's folder gets of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import Folder

from regap_patch.cli import main
from regap_patch.errors import JudgeError
from regap_patch.judges import Exchange, Resources, judge_run, make_judge
from regap_patch.records import Verdict, read_lines
from regap_patch.safety.benchmarks.scoring import score_text

SCORER = Resources(score=score_text)


@pytest.mark.parametrize(
    ("meta", "fault"),
    [
        ({}, "no scorer and reference"),
        ({"scorer": "exact"}, "no `answers`"),
        ({"scorer": "figstep", "reference": {}}, "'figstep'"),
        ({"scorer": "textvqa", "reference": {"answers": ["a"]}}, "1 reference answers"),
    ],
)
def test_an_item_that_cannot_be_scored_is_unscored(meta: dict, fault: str):
    (found,) = make_judge("scorer", SCORER).judge([Exchange("Q", "a", "utility", meta)])
    assert (found.label, found.response_class, found.score) == ("unscored", "judge-error", None)
    assert fault in found.error


@pytest.mark.parametrize(
    ("answer", "score"), [("Red.", 1.0), (" red ", 1.0), ("dark red", 1.0), ("red circle", 0.0), ("", 0.0)]
)
def test_equality_with_a_right_answer(answer: str, score: float):
    meta = {"scorer": "exact", "answers": ["red", "Dark Red."]}
    (found,) = make_judge("scorer", SCORER).judge([Exchange("Q", answer, "utility", meta)])
    assert (found.label, found.score) == ("safe", score)


def test_nothing_is_no_yes():
    judge = make_judge("scorer", SCORER)
    meta = {"scorer": "pope", "reference": {"yes": True}}
    said, empty = judge.judge([Exchange("Q", text, "utility", meta) for text in ("Perhaps.", " ")])
    assert (said.score, empty.score, empty.response_class) == (1.0, 0.0, "empty")


def test_a_soft_score_is_kept_as_it_is():
    meta = {"scorer": "textvqa", "reference": {"answers": ["stop"] * 2 + ["halt"] * 8}}
    (found,) = make_judge("scorer", SCORER).judge([Exchange("Q", "Stop.", "utility", meta)])
    assert found.score == pytest.approx(0.6)


def test_without_rules_there_is_no_scorer():
    with pytest.raises(JudgeError, match="regap eval judge"):
        make_judge("scorer")


@pytest.mark.parametrize("by", ["call", "command"])
def test_it_judges_utility_items_alone_and_an_empty_answer_is_wrong(tmp_path: Path, by: str):
    folder = Folder(tmp_path / "run").ask("pope", 4, kind="utility", modes=("real",)).ask("figstep", 2)
    meta = {"scorer": "pope", "reference": {"yes": False}}
    folder.samples = [
        replace(sample, meta=meta) if sample.kind == "utility" else sample for sample in folder.samples
    ]
    says = ["No", "", "Yes", "I cannot help with that."]
    folder.answer(lambda sample: says[int(sample.uid[-1])]).save()
    if by == "call":
        report = judge_run(folder.path, make_judge("scorer", SCORER))
        assert (report.asked, report.labels) == (4, {"safe": 4})
    else:
        assert main(["eval", "judge", str(folder.path), "--judges", "scorer"]) == 0
    found = list(read_lines(folder.path / "verdicts/scorer/pope/real.jsonl", Verdict))
    assert [(verdict.score, verdict.response_class) for verdict in found] == [
        (1.0, "safe-help"),
        (0.0, "empty"),
        (0.0, "safe-help"),
        (0.0, "refusal"),
    ]
    assert not (folder.path / "verdicts/scorer/figstep").exists()
