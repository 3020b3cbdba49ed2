"""Utility benchmarks: answers are scored by the programs that LLaVA's users know."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from benchmark_layouts import LAYOUTS, small
from evaluations import Folder

from llava.eval import eval_mme, eval_pope
from regap_patch.cli import main
from regap_patch.errors import BenchmarkError
from regap_patch.records import Sample
from regap_patch.safety.benchmarks import BENCHMARKS, adapter_of
from regap_patch.safety.benchmarks.scoring import SCORED, known_numbers, score_text, scorer_of

UTILITY = ("mme", "pope", "scienceqa", "textvqa")


def items(tmp_path: Path, name: str) -> list[Sample]:
    LAYOUTS[name](tmp_path, small(adapter_of(name).COUNTS))
    return list(adapter_of(name).samples(tmp_path))


def test_the_scored_are_the_benchmarks_of_utility():
    facts = [adapter_of(name).BENCHMARK for name in BENCHMARKS]
    assert {fact.name for fact in facts if fact.kind == "utility"} == set(UTILITY)
    assert set(UTILITY) <= set(SCORED)
    assert all("llava.eval." in scorer_of(name).PARSER for name in UTILITY)


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("pope", {"Yes, it is. No doubt.": 1, "There is not one": 0, "": 1}),  # the first item's truth is yes
        ("scienceqa", {"B": 1, "B. two": 1, "The answer is B.": 1, "two": 0, "": 0, "A": 0}),
        ("textvqa", {"up": 1, "Up.": 1, "down": 0.3, "sideways": 0, "": 0}),
        ("mme", {"Yes": 1, "yes, it is": 1, "No": 0, "perhaps": 0, "": 0}),
    ],
)
def test_an_answer_is_scored_as_its_program_scores_it(tmp_path: Path, name: str, scores: dict[str, float]):
    item = items(tmp_path, name)[0]
    assert item.kind == "utility"
    for text, score in scores.items():
        assert score_text(text, item.meta) == pytest.approx(score), text


def test_pope_counts_by_category(tmp_path: Path):
    every = items(tmp_path, "pope")
    answers = [(item, "yes" if index % 3 else "no") for index, item in enumerate(every)]
    numbers = scorer_of("pope").summary(answers)
    for category in ("adversarial", "popular", "random"):
        counts = eval_pope.count(
            (text, item.meta["reference"]["yes"]) for item, text in answers if item.scenario == category
        )
        assert numbers[f"{category} f1"] == counts.f1
        assert numbers[f"{category} accuracy"] == counts.accuracy
    f1 = [numbers[f"{category} f1"] for category in ("adversarial", "popular", "random")]
    assert numbers["mean f1"] == pytest.approx(sum(f1) / 3)


def test_mme_sums_halves_that_are_whole(tmp_path: Path):
    every = items(tmp_path, "mme")
    right = [(item, item.meta["reference"]["truth"]) for item in every]
    numbers = scorer_of("mme").summary(right)
    assert (numbers["perception"], numbers["cognition"]) == (2000, 800)
    only_yes = scorer_of("mme").summary([(item, "Yes\tindeed\nyes") for item in every])
    assert only_yes["artwork"] == 50  # half of the questions, no picture whole
    partial = scorer_of("mme").summary([pair for pair in right if pair[0].scenario != "OCR"][1:])
    assert "perception" not in partial
    assert "cognition" in partial
    assert set(partial) < set(numbers)
    assert {task for tasks in eval_mme.TASKS.values() for task in tasks} == set(adapter_of("mme").COUNTS)
    assert set(eval_mme.TASKS["Cognition"]) == set(adapter_of("mme").COGNITION)


def test_scienceqa_tells_what_could_not_be_read(tmp_path: Path):
    every = items(tmp_path, "scienceqa")
    numbers = scorer_of("scienceqa").summary(list(zip(every, ["B", "A", "hm", "B."], strict=True)))
    assert numbers == {"accuracy": 0.25, "unparseable": 0.5}


def test_textvqa_is_the_mean_of_its_items(tmp_path: Path):
    every = items(tmp_path, "textvqa")
    pairs = list(zip(every, ["up", "down", "", "up"], strict=True))
    mean = sum(score_text(text, item.meta) for item, text in pairs) / 4
    assert scorer_of("textvqa").summary(pairs) == {"accuracy": pytest.approx(mean)}


def test_no_answers_give_no_numbers():
    assert [scorer_of(name).summary([]) for name in UTILITY] == [{}] * 4


def test_other_benchmarks_are_for_judges(tmp_path: Path):
    with pytest.raises(BenchmarkError, match=r"only mme, pope, scienceqa, textvqa.* have right ones"):
        scorer_of("figstep")
    with pytest.raises(BenchmarkError, match="has no scorer and reference in meta: ask a judge"):
        score_text("so", {})


def test_another_llava_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "llava.eval.eval_pope", None)
    with pytest.raises(BenchmarkError, match=r"llava.eval.eval_pope.says_yes, but the llava .* has none"):
        score_text("yes", {"scorer": "pope", "reference": {"yes": True}})


def test_known_numbers_are_apart_by_benchmark_and_mode(tmp_path: Path):
    every = items(tmp_path, "scienceqa")
    blank = [dataclasses.replace(item, image_mode="blank") for item in every]
    harm = dataclasses.replace(every[0], kind="harm", benchmark="figstep", meta={})
    answered = [(item, "B") for item in every] + [(item, "A") for item in blank] + [(harm, "B")]
    numbers = known_numbers(answered)
    assert numbers.keys() == {"scienceqa"}
    assert {mode: row["accuracy"] for mode, row in numbers["scienceqa"].items()} == {"real": 1, "blank": 0}


def test_score_says_the_numbers_that_papers_quote(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = Folder(tmp_path / "run").ask("other", 4)
    (tmp_path / "data").mkdir()
    folder.samples += items(tmp_path / "data", "mme")
    folder.answer(lambda item: item.meta.get("reference", {}).get("truth", "so"))
    del folder.answers[-1]
    run = folder.judge("one", lambda sample, answer: {"label": "safe", "score": 1.0}).save()
    assert main(["eval", "score", str(run)]) in (0, 3)
    said = next(line for line in capsys.readouterr().out.splitlines() if "mme, real" in line)
    assert "55 of 56 answered: OCR 200, " in said
    assert "perception 2000" in said
    assert "cognition" not in said
    row = json.loads((run / "utility.json").read_text())["rows"][0]
    assert (row["answered"], row["asked"], row["numbers"]["perception"]) == (55, 56, 2000)
