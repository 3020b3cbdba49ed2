"""The plan before a run, and the sheets that people fill in."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path

import pytest
from evaluations import Folder, number_of

from regap_patch.errors import ReportError
from regap_patch.records import Sample
from regap_patch.report import plan_lines, plan_run, read_sheet, score_run, validate_judges, write_sheet
from regap_patch.report.labels import COLUMNS
from regap_patch.report.power import smallest_difference
from regap_patch.report.proportions import wilson


def test_a_plan_counts_answers_and_tells_what_can_be_seen():
    plan = plan_run({"toy": {"none": 265, "real": 265}, "text": {"none": 50}}, max_new_tokens=512, judges=2)
    toy, text = plan["benchmarks"]
    assert (toy["items"], toy["answers"], toy["most_tokens"]) == (265, 530, 530 * 512)
    assert (plan["answers"], plan["judgements"], plan["seconds"]) == (580, 1160, None)
    assert toy["interval"] == pytest.approx(wilson(132, 265))
    assert toy["smallest"]["0.25"] == smallest_difference(265, 0.25)
    assert toy["smallest"]["0.25"] == pytest.approx(
        0.085, abs=0.005
    )  # 8 to 9 points, as safety sets of this size do
    assert text["smallest"]["0.05"] is None
    words = "\n".join(plan_lines(plan))
    assert "toy: 265 items in 2 image modes (none, real) are 530 answers, time -" in words
    assert "580 answers of at most 296960 tokens, 1160 judgements" in words
    assert "nothing at 5%" in words


def say(sample: Sample) -> str:
    return f"={number_of(sample)} answer,\nsecond line"


def judged(path: Path) -> Path:
    """90 items. Judges: 30 both unsafe, 40 both safe, 20 apart."""
    folder = Folder(path).ask("toy", 90, modes=("real",)).answer(say)
    folder.judge("one", lambda sample, answer: {"label": "unsafe" if number_of(sample) < 50 else "safe"})
    folder.judge("two", lambda sample, answer: {"label": "unsafe" if number_of(sample) < 30 else "safe"})
    return folder.save()


def test_an_earlier_run_tells_time_and_discordance(tmp_path: Path):
    folder = Folder(tmp_path / "run").ask("toy", 100).answer(say)
    folder.judge(
        "one",
        lambda sample, answer: {
            "label": "unsafe" if sample.image_mode == "real" and number_of(sample) < 20 else "safe"
        },
    )
    run = folder.save()
    score_run(run)
    for mode, seconds in (("none", 10.0), ("real", 30.0)):
        trace = run / "trace/toy" / mode / "part-0.jsonl"
        trace.parent.mkdir(parents=True)
        rows = [{"block": 0, "items": 50, "seconds": seconds, "tokens": 500}] * 2
        trace.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"torn')
    plan = plan_run(
        {"toy": {"real": 1000}, "new": {"real": 100}}, max_new_tokens=64, num_shards=2, previous=run
    )
    toy, new = plan["benchmarks"]
    assert (toy["seconds"], new["seconds"], plan["seconds"]) == pytest.approx((400.0, 40.0, 220.0))
    assert (toy["measured"], new["measured"]) == (pytest.approx(0.2), None)
    assert toy["smallest_at_measured"] == smallest_difference(1000, 0.2)
    assert "the earlier run differed on 20.0%" in "\n".join(plan_lines(plan))
    assert "about 3 min 40 s on 2 device(s)" in plan_lines(plan)[-1]
    with pytest.raises(ReportError, match="has no trace"):
        plan_run({"toy": {"real": 10}}, max_new_tokens=64, previous=tmp_path)
    with pytest.raises(ReportError, match="at least one benchmark"):
        plan_run({"toy": {}}, max_new_tokens=64)


def fill(sheet: Path, truth: dict[str, str], annotator: str = "ann", **changes: str) -> Path:
    rows = list(csv.DictReader(io.StringIO(sheet.read_text(), newline="")))
    for row in rows:
        row.update(label=truth[row["key"]], annotator=annotator, **changes)
    filled = sheet.with_name(f"filled-{annotator}.csv")
    with filled.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\r\n")  # as spreadsheets write
        writer.writeheader()
        writer.writerows(rows)
    return filled


def numbers(run: Path) -> dict[str, int]:
    lines = (run / "answers/toy/real/part-0.jsonl").read_text().splitlines()
    return {row["key"]: int(row["uid"][-4:]) for row in map(json.loads, lines)}


def test_a_sheet_is_drawn_where_judges_disagree_and_hides_them(tmp_path: Path):
    run = judged(tmp_path / "run")
    drawn = write_sheet(run, tmp_path / "sheet.csv", size=40, seed=1)
    assert drawn == {"disagree": 20, "safe": 10, "unsafe": 10}
    text = (tmp_path / "sheet.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert (len(rows), tuple(rows[0])) == (40, COLUMNS)
    assert len({row["key"] for row in rows}) == 40
    for word in ("one", "two", "unsafe", "real", "disagree"):
        assert word not in text
    assert all(row["answer"].startswith("'=") for row in rows)  # no spreadsheet computes an answer
    write_sheet(run, tmp_path / "again.csv", size=40, seed=1)
    assert (tmp_path / "again.csv").read_text() == text
    write_sheet(run, tmp_path / "other.csv", size=40, seed=2)
    assert (tmp_path / "other.csv").read_text() != text
    assert write_sheet(run, tmp_path / "all.csv", size=1000) == {"disagree": 20, "safe": 40, "unsafe": 30}
    with pytest.raises(ReportError, match="may hold labels"):
        write_sheet(run, tmp_path / "sheet.csv")


def test_a_filled_sheet_tells_how_judges_err_over_the_whole_run(tmp_path: Path):
    """The first 40 are unsafe. Judge one finds them all, and 10 of 50 safe ones besides; two finds 30."""
    run = judged(tmp_path / "run")
    write_sheet(run, tmp_path / "sheet.csv", size=1000)
    of_key = numbers(run)
    filled = fill(
        tmp_path / "sheet.csv", {key: "unsafe" if at < 40 else "safe" for key, at in of_key.items()}
    )
    assert Counter(row.label for row in read_sheet(filled, run)) == {"unsafe": 40, "safe": 50}
    found = validate_judges([filled], run, tmp_path / "labels.json")
    one, two = found["one"], found["two"]
    assert (one["finding"], one["items"], one["unscored"]) == ("unsafe", 90, 0)
    assert one["sensitivity"] == pytest.approx([40, 40])
    assert one["specificity"] == pytest.approx([40, 50])
    assert two["sensitivity"] == pytest.approx([30, 40])
    assert two["specificity"] == pytest.approx([50, 50])
    written = json.loads((tmp_path / "labels.json").read_text())
    cells = {cell["judge"]: cell for cell in score_run(run, validation=written)["cells"]}
    for judge, rate in (("one", 50 / 90), ("two", 30 / 90)):
        assert cells[judge]["rate"] == pytest.approx(rate)
        assert cells[judge]["corrected"]["rate"] == pytest.approx(40 / 90)  # the truth, from either judge


def test_a_sheet_drawn_unevenly_still_speaks_of_the_run(tmp_path: Path):
    """Half of the sheet is disagreement, a fifth of the run: unweighted, one would pass half of the safe."""
    run = judged(tmp_path / "run")
    write_sheet(run, tmp_path / "sheet.csv", size=40)
    filled = fill(
        tmp_path / "sheet.csv", {key: "unsafe" if at < 30 else "safe" for key, at in numbers(run).items()}
    )
    passed, rows = validate_judges([filled], run)["one"]["specificity"]
    assert passed / rows == pytest.approx(40 / 60)
    assert rows < 30  # and fewer rows' worth of certainty than the 30 safe ones of the sheet


def test_two_people_have_a_kappa(tmp_path: Path):
    run = judged(tmp_path / "run")
    write_sheet(run, tmp_path / "sheet.csv", size=90)
    of_key = numbers(run)
    sheets = [
        fill(
            tmp_path / "sheet.csv",
            {key: "unsafe" if at < limit else "safe" for key, at in of_key.items()},
            annotator=name,
        )
        for name, limit in (("ann", 45), ("bo", 36))
    ]
    people = validate_judges(sheets, run)["one"]["people"]
    assert (people["annotators"], people["n"]) == (["ann", "bo"], 90)
    assert people["kappa"] == pytest.approx(0.8)
    assert validate_judges(sheets[:1], run)["one"]["people"] is None


def test_a_sheet_takes_whatever_a_model_said(tmp_path: Path):
    said = ["two\rlines", "=1+1\r=1+1", 'a "quoted", text\n', "\n=1", "'=1"]
    folder = Folder(tmp_path / "run").ask("toy", len(said), modes=("real",))
    folder.answer(lambda sample: said[number_of(sample)]).judge("one", lambda *_: {"label": "unsafe"})
    run = folder.save()
    write_sheet(run, tmp_path / "sheet.csv")
    filled = fill(tmp_path / "sheet.csv", dict.fromkeys(numbers(run), "safe"))
    assert len(read_sheet(filled, run)) == len(said)


def test_a_sheet_that_was_spoiled_is_refused(tmp_path: Path):
    run = judged(tmp_path / "run")
    write_sheet(run, tmp_path / "sheet.csv", size=20)
    truth = dict.fromkeys(numbers(run), "safe")
    cases = [
        (
            fill(tmp_path / "sheet.csv", dict.fromkeys(truth, "maybe"), "a"),
            "Row 2 .* label 'maybe': write safe or",
        ),
        (fill(tmp_path / "sheet.csv", truth, "b", key="0123"), "Row 2 .* key that no answer of"),
        (fill(tmp_path / "sheet.csv", truth, "c", answer="other"), "shows another answer than the run gave"),
        (fill(tmp_path / "sheet.csv", truth, "d", response_class="nice"), "class 'nice'"),
        (fill(tmp_path / "sheet.csv", dict.fromkeys(truth, ""), "e"), "no row with a label"),
        (tmp_path / "nowhere.csv", "was to be read as a labelling sheet"),
    ]
    twice = fill(tmp_path / "sheet.csv", truth, "f")
    twice.write_text(twice.read_text() + "".join(twice.read_text().splitlines(keepends=True)[1:3]))
    cases.append((twice, "for the second time"))
    headless = tmp_path / "headless.csv"
    headless.write_text("key,label\n")
    cases.append((headless, "lacks the column question"))
    endless = tmp_path / "endless.csv"
    endless.write_text(f'{",".join(COLUMNS)}\n"{"x" * 200_000}')
    cases.append((endless, "is no CSV"))
    for sheet, sentence in cases:
        with pytest.raises(ReportError, match=sentence):
            read_sheet(sheet, run)
