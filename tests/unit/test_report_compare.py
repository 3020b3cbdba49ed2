"""Two runs over the same items: paired tables, and one sentence where they cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import MANIFEST, Folder, number_of, unsafe_below

from regap_patch.errors import ReportError
from regap_patch.records import Sample
from regap_patch.report.compare import compare_runs
from regap_patch.report.paired import PairedTable, mcnemar, newcombe
from regap_patch.report.proportions import wilson


def say(sample: Sample) -> str:
    return f"answer {number_of(sample)}"


def run(path: Path, real: int, *, none: int = 10, judge: str = "one", **manifest: object) -> Folder:
    folder = Folder(path, {**deepcopy(MANIFEST), **manifest}).ask("toy", 100).answer(say)
    return folder.judge(judge, unsafe_below({"none": none, "real": real}))


def test_runs_are_compared_item_by_item(tmp_path: Path):
    first, second = run(tmp_path / "off", 40).save(), run(tmp_path / "on", 25).save()
    found = compare_runs(first, second, output_path=tmp_path / "compare.json")
    text, real = found["contrasts"]
    assert (text["image_mode"], text["difference"], text["mid_p"]) == ("none", 0.0, 1.0)
    table = PairedTable(25, 15, 0, 60)
    assert real["table"] == {"both": 25, "reference_only": 15, "other_only": 0, "neither": 60}
    assert (real["low"], real["high"]) == pytest.approx(newcombe(table))
    assert (real["p"], real["mid_p"]) == pytest.approx(mcnemar(table))
    assert real["p_holm"] == real["mid_p"]
    (tax,) = found["image_tax"]
    assert tax["change"] == pytest.approx((0.25 - 0.10) - (0.40 - 0.10))
    assert tax["low"] < tax["change"] < tax["high"] < 0
    assert json.loads((tmp_path / "compare.json").read_text()) == json.loads(json.dumps(found))
    assert (found["first"]["name"], found["second"]["name"], found["incomplete"]) == ("off", "on", False)


def test_utility_is_kept_by_its_interval_not_by_a_test(tmp_path: Path):
    def scored(path: Path, count: int, wrong: int) -> Path:
        folder = Folder(path).ask("vqa", count, modes=("real",), kind="utility").answer(say)
        folder.judge(
            "scorer-exact",
            lambda sample, answer: {"label": "safe", "score": float(number_of(sample) >= wrong)},
        )
        return folder.save()

    few = compare_runs(scored(tmp_path / "a", 60, 6), scored(tmp_path / "b", 60, 6))["contrasts"][0]
    assert (few["difference"], few["mid_p"], few["non_inferior"]) == (0.0, 1.0, False)
    many = compare_runs(scored(tmp_path / "c", 1500, 6), scored(tmp_path / "d", 1500, 6))["contrasts"][0]
    assert many["non_inferior"] is True
    worse = compare_runs(tmp_path / "c", scored(tmp_path / "e", 1500, 40))["contrasts"][0]
    assert (worse["non_inferior"], worse["margin"]) == (False, 0.01)
    assert compare_runs(tmp_path / "c", tmp_path / "e", margin=0.05)["contrasts"][0]["non_inferior"] is True


def test_few_clusters_without_a_difference_keep_nothing(tmp_path: Path):
    def scored(path: Path) -> Path:
        folder = Folder(path).ask(
            "pope", 12, modes=("real",), kind="utility", cluster=lambda number: f"photograph {number // 6}"
        )
        folder.answer(say).judge("scorer", lambda sample, answer: {"label": "safe", "score": 1.0})
        return folder.save()

    (found,) = compare_runs(scored(tmp_path / "a"), scored(tmp_path / "b"))["contrasts"]
    assert (found["difference"], found["method"], found["non_inferior"]) == (0.0, "cluster bootstrap", False)
    assert found["low"] == -found["high"] == pytest.approx(-wilson(0, 2).high)


def changed(field: str, value: object) -> Callable[[Folder], None]:
    def change(folder: Folder) -> None:
        folder.samples[-1] = replace(folder.samples[-1], **{field: value})

    return change


def shorter(folder: Folder) -> None:
    folder.samples.pop()
    folder.answers.pop()
    folder.verdicts.pop()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda folder: folder.manifest.update(template="llama_2"),
            r"template differs \('v1' and 'llama_2'\)",
        ),
        (
            lambda folder: folder.manifest["target"].update(template_text="x" * 100),
            r"template_text differs \(None and 'x{59}\.\.\.\)",
        ),
        (lambda folder: folder.manifest.update(decoding={"temperature": 1.0}), "decoding differs"),
        (shorter, r"1 items are in one of them alone \(toy/test/0099 in mode real"),
        (changed("prompt", "another"), "1 prompts differ"),
        (changed("judge_question", "another"), "1 questions to the judge differ"),
        (changed("image_sha256", "0" * 64), "1 pictures differ"),
        (changed("meta", {"words": "A cat."}), "1 texts in the picture's place differ"),
        (changed("meta", {"block": "easy"}), "1 scenarios differ"),
        (changed("cluster", "another"), "1 clusters differ"),
    ],
)
def test_what_differs_by_more_is_refused(tmp_path: Path, change: Callable[[Folder], None], sentence: str):
    other = run(tmp_path / "on", 25)
    change(other)
    first, second = run(tmp_path / "off", 40).save(), other.save()
    with pytest.raises(ReportError, match=sentence) as refused:
        compare_runs(first, second)
    assert "\n" not in str(refused.value)
    assert "run both with the same settings" in str(refused.value)


def test_other_modes_and_judges_are_refused(tmp_path: Path):
    first = run(tmp_path / "off", 40).save()
    modes = Folder(tmp_path / "modes").ask("toy", 100, modes=("none", "blank")).answer(say)
    modes.judge("one", unsafe_below({"none": 1, "blank": 1}))
    with pytest.raises(ReportError, match=r"image modes differ \(none, real and blank, none\)"):
        compare_runs(first, modes.save())
    with pytest.raises(ReportError, match=r"judges differ \(one r1 on toy and two r1 on toy\)"):
        compare_runs(first, run(tmp_path / "two", 25, judge="two").save())
    other = run(tmp_path / "revised", 25)
    other.verdicts = [replace(verdict, revision="r2") for verdict in other.verdicts]
    with pytest.raises(ReportError, match="one r1 on toy and one r2 on toy"):
        compare_runs(first, other.save())


def test_another_defence_and_other_weights_are_what_is_compared(tmp_path: Path):
    first = run(tmp_path / "off", 40).save()
    target = {"kind": "llava", "files": {"model.safetensors": "9999"}, "template": "v1"}
    second = run(tmp_path / "defended", 5, target=target, defense="cmrm").save()
    assert compare_runs(first, second)["second"]["defense"] == "cmrm"


def test_another_threshold_is_another_judge(tmp_path: Path):
    folders = [run(tmp_path / "off", 40), run(tmp_path / "on", 25)]
    for folder, threshold in zip(folders, (0.4, 0.5), strict=True):
        folder.about = {"one": {"threshold": threshold, "settings": {}}}
    with pytest.raises(ReportError, match=r"judges differ \(one r1 > 0.4 on toy and one r1 > 0.5 on toy\)"):
        compare_runs(folders[0].save(), folders[1].save())
