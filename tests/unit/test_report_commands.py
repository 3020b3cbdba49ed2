"""`regap eval score`, `compare`, `report`, `labels`: their files, their words and their exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluations import Folder, number_of, unsafe_below

from regap_patch.cli import main
from regap_patch.records import Sample


def say(sample: Sample) -> str:
    return f"answer {number_of(sample)}"


def judged(path: Path, real: int, unknown: int = 0) -> Path:
    folder = Folder(path).ask("toy", 100).answer(say)
    decide = unsafe_below({"none": 10, "real": real})
    folder.judge(
        "one",
        lambda sample, answer: (
            {"label": "unscored"} if number_of(sample) >= 100 - unknown else decide(sample, answer)
        ),
    )
    return folder.save()


def test_score_prints_the_tables_and_ends_in_3_where_too_much_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["eval", "score", str(judged(tmp_path / "whole", 30))]) == 0
    said = capsys.readouterr().out
    assert "Image tax" in said
    assert "+20.0" in said
    assert (tmp_path / "whole/metrics.json").is_file()
    assert main(["eval", "score", str(judged(tmp_path / "holes", 30, unknown=5))]) == 3
    said = capsys.readouterr().out
    assert "bounds 30.0 to 35.0" in said
    assert "30.0 %" not in said


def test_compare_ends_in_one_sentence_or_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second = judged(tmp_path / "off", 40), judged(tmp_path / "on", 25)
    out = tmp_path / "compare.json"
    assert main(["eval", "compare", str(first), str(second), "--output_path", str(out)]) == 0
    assert "-15.0" in capsys.readouterr().out
    assert json.loads(out.read_text())["schema"] == "regap.compare/1"
    manifest = json.loads((second / "manifest.json").read_text())
    manifest["target"]["template"] = "llama_2"
    (second / "manifest.json").write_text(json.dumps(manifest))
    assert main(["eval", "compare", str(first), str(second)]) == 1
    said = capsys.readouterr().err
    assert "template differs" in said
    assert said.count("\n") == 1


def test_report_writes_its_four_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    runs = [str(judged(tmp_path / "off", 40)), str(judged(tmp_path / "on", 25))]
    gaps = []
    for number, value in enumerate((3.0, 1.0)):
        gap = tmp_path / f"gap{number}.json"
        gap.write_text(json.dumps({"mean": {"centroid_l2": value}}))
        gaps += ["--gap", str(gap)]
    assert main(["eval", "report", *runs, *gaps, "--output_path", str(tmp_path / "out")]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.split()]
    assert names == ["report.html", "metrics.csv", "samples.csv", "model_card.md"]
    assert "Unsafe rate and gap between the centroids" in (tmp_path / "out/report.html").read_text()


def test_labels_go_out_and_come_back_into_the_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run, sheet, result = judged(tmp_path / "run", 30), tmp_path / "sheet.csv", tmp_path / "labels.json"
    assert main(["eval", "labels", str(run), "--output_path", str(sheet), "--size", "60"]) == 0
    assert "30 safe, 30 unsafe" in capsys.readouterr().out
    lines = sheet.read_text().splitlines()
    filled = tmp_path / "filled.csv"
    filled.write_text("\n".join([lines[0], *(line.replace(",,,,", ",unsafe,,ann,") for line in lines[1:31])]))
    back = ["eval", "labels", str(run), "--filled", str(filled), "--output_path", str(result)]
    assert main(back) == 0
    assert "sensitivity" in capsys.readouterr().out
    found = json.loads(result.read_text())["one"]
    assert found["finding"] == "unsafe"
    assert main(["eval", "score", str(run), "--validation", str(result)]) == 0
