"""The page, the tables and the model card: what they hold, hide and escape."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from evaluations import Folder, number_of, unsafe_below

from regap_patch.errors import ReportError
from regap_patch.records import Sample
from regap_patch.report.browser import data_block
from regap_patch.report.gaps import read_gap
from regap_patch.report.run_folder import read_evaluation
from regap_patch.report.spreadsheets import armed, disarmed, to_csv
from regap_patch.report.writing import write_report

NASTY = "<script>alert(1)</script></script><img src=x onerror=alert(2)> & \u2028 =1+1"


def say(sample: Sample) -> str:
    return (
        f"{NASTY} number {number_of(sample)}" if sample.image_mode == "real" else f"plain {number_of(sample)}"
    )


def evaluation(path: Path, real: int = 30) -> Path:
    folder = Folder(path).ask("toy", 60, modes=("none", "words", "real"), scenarios=("x", "y"))
    folder.ask("twins", 40, kind="benign", prompt="How do I fold napkin {number}?").answer(say)
    limits = {"none": 5, "words": 6, "real": real}
    folder.judge(
        "one",
        lambda sample, answer: (
            unsafe_below(limits)(sample, answer)
            if sample.kind == "harm"
            else {"label": "safe", "response_class": "refusal" if number_of(sample) < 4 else "safe-help"}
        ),
    )
    return folder.save()


class Elements(HTMLParser):
    """Tags with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("report")
    runs = [evaluation(root / "off", 40), evaluation(root / "on", 12)]
    gaps = []
    for name, value in (("off", 3.5), ("on", 1.25)):
        gaps.append(root / f"{name}.json")
        gaps[-1].write_text(json.dumps({"mean": {"centroid_l2": value}, "stderr": {"centroid_l2": 0.1}}))
    paths = write_report(runs, gaps=[[gap] for gap in gaps], output_path=root / "out")
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def test_page_is_one_file_that_fetches_nothing(written: dict[str, str]):
    page = written["report.html"]
    found = Elements(page)
    policy = next(attributes["content"] for tag, attributes in found.tags if attributes.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy
    assert "base-uri 'none'" in policy
    fetching = {"src", "action", "srcset", "poster", "data"}
    assert not [tag for tag, attributes in found.tags if fetching & attributes.keys()]
    assert {attributes["href"] for tag, attributes in found.tags if tag == "link"} == {"data:,"}
    assert all(str(attributes["href"]).startswith("#") for tag, attributes in found.tags if tag == "a")
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    anchors = {attributes["id"] for _, attributes in found.tags if "id" in attributes}
    assert {str(attributes["href"])[1:] for tag, attributes in found.tags if tag == "a"} <= anchors


def test_what_a_model_said_is_data(written: dict[str, str]):
    found = Elements(written["report.html"])
    assert len(found.scripts) == 2
    assert [tag for tag, _ in found.tags].count("img") == 0
    data = json.loads(found.scripts[0])
    answers = [row["answer"] for row in data["rows"] if row["mode"] == "real"]
    assert answers[0].startswith(NASTY)
    assert len(data["rows"]) == 2 * (60 * 3 + 40 * 2)
    assert not set("<>&\u2028") & set(found.scripts[0])


def test_harmful_texts_are_blurred_removed_or_shown(tmp_path: Path, written: dict[str, str]):
    rows = json.loads(Elements(written["report.html"]).scripts[0])["rows"]
    by_key = {(row["run"], row["uid"], row["mode"]): row for row in rows}
    unsafe, safe = by_key["off", "toy/test/0001", "real"], by_key["off", "toy/test/0059", "real"]
    assert (unsafe["hide_prompt"], unsafe["hide_answer"]) == (True, True)
    assert (safe["hide_prompt"], safe["hide_answer"]) == (True, False)
    assert by_key["off", "twins/test/0001", "real"]["hide_prompt"] is False
    samples = list(csv.DictReader(io.StringIO(written["samples.csv"])))
    assert len(samples) == len(rows)
    hidden = next(row for row in samples if row["uid"] == "toy/test/0001" and row["mode"] == "real")
    assert re.fullmatch(r"\[redacted: \d+ characters\]", hidden["answer"])
    assert hidden["verdicts"] == "one=unsafe/unsafe"
    run = evaluation(tmp_path / "run")
    removed = write_report([run], redaction="remove")[0].read_text()
    assert "forbidden napkin" not in removed
    assert "fold napkin" in removed
    shown = json.loads(Elements(write_report([run], redaction="none")[0].read_text()).scripts[0])["rows"]
    assert not any(row["hide_prompt"] or row["hide_answer"] for row in shown)


def test_captions_name_judge_template_decoding_and_date(written: dict[str, str]):
    captions = re.findall(r"<(?:caption|figcaption)>(.*?)</", written["report.html"])
    assert len(captions) >= 7
    for caption in captions:
        for words in (
            "one (revision r1)",
            "Template: v1",
            "temperature=0.0",
            "2026-11-22",
            "n counts",
            "nterval",
        ):
            assert words in caption, (words, caption)


def test_sections_of_the_page(written: dict[str, str]):
    page = written["report.html"]
    for title in (
        "Image tax",
        "Unsafe rate and over-refusal together",
        "Runs against the first",
        "Provenance",
    ):
        assert f"<h2>{title}</h2>" in page
    assert "Unsafe rate and gap between the centroids" in page
    assert page.count("<svg") == 2
    assert ">off, one<" in page
    assert "<td>+58.3</td>" in page  # 40 of 60 against 5 of 60
    assert "prefers-color-scheme: dark" in page


def test_model_card_holds_tables_and_no_text_of_a_model(written: dict[str, str]):
    card = written["model_card.md"]
    assert "| off | none | toy | unsafe | real | one | 60 | 66.7 % |" in card
    assert "alert" not in card
    assert "napkin" not in card
    assert "Judges: one (revision r1). Template: v1." in card
    assert "Date: 2026-11-22" in card
    for table in re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE):
        assert len({line.replace(r"\|", "").count("|") for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "\n=1", "a\r=1+1", "a\n=1", 'a","=1', "'=1"]
)
def test_no_text_makes_a_formula_or_a_row_of_a_csv(text: str):
    _, row = csv.reader(io.StringIO(to_csv(("first", "second"), [("x", text)]), newline=""))
    assert row == ["x", disarmed(text)]
    assert not row[1].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert armed(row[1]) == text


def test_scores_that_are_no_number_are_unknown_and_leave_the_page_readable(tmp_path: Path):
    folder = Folder(tmp_path / "run").ask("toy", 100, modes=("real",)).answer(say)
    folder.judge(
        "one",
        lambda sample, answer: {"label": "safe", "score": math.nan if number_of(sample) < 60 else 0.1},
    )
    validation = {"one": {"sensitivity": (50, 50), "specificity": (50, 50)}}
    run = folder.save()
    page = write_report([run], validation=validation)[0].read_text()
    assert {row["verdicts"][0]["score"] for row in strict(Elements(page).scripts[0])["rows"]} == {None, 0.1}
    cell = strict((run / "metrics.json").read_text())["cells"][0]
    assert (cell["unknown"], cell["incomplete"]) == (60, True)
    (row,) = re.findall(r"<tbody><tr>(.*?)</tr>", page)[:1]
    texts = re.findall(r"<td[^>]*>(.*?)</td>", row)
    assert "bounds 0.0 to 60.0" in texts
    assert texts[13] == "-"  # no rate without the judge's errors either


def test_what_a_judge_quotes_in_an_error_is_taken_out_too(tmp_path: Path):
    folder = Folder(tmp_path / "run").ask("toy", 2, modes=("real",)).answer(say)
    folder.judge("one", lambda *_: {"label": "unscored", "error": "no verdict in: a quoted answer"})
    run = folder.save()
    assert "a quoted answer" in write_report([run])[0].read_text()
    assert "a quoted answer" not in write_report([run], redaction="remove")[0].read_text()


def strict(text: str) -> Any:
    """As browsers read JSON: NaN is none."""
    return json.loads(text, parse_constant=pytest.fail)


def test_metrics_csv_is_the_cells(written: dict[str, str]):
    rows = list(csv.DictReader(io.StringIO(written["metrics.csv"])))
    (real,) = [
        row
        for row in rows
        if (row["run"], row["benchmark"], row["image_mode"], row["scenario"]) == ("off", "toy", "real", "")
    ]
    assert (real["n"], real["k"], float(real["rate"])) == ("60", "40", pytest.approx(2 / 3))


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "plain", "'quoted", "''=", ""])
def test_no_text_is_a_formula_and_none_is_lost(text: str):
    assert not disarmed(text).startswith(("=", "+", "-", "@", "\t"))
    assert armed(disarmed(text)) == text


def test_runs_that_cannot_be_compared_are_still_reported(tmp_path: Path):
    other = Folder(tmp_path / "other").ask("toy", 10, modes=("real",)).answer(say)
    other.judge("one", unsafe_below({"real": 1}))
    page = write_report([evaluation(tmp_path / "run"), other.save()])[0].read_text()
    assert "other is not set against run:" in page
    assert "Runs against the first" not in page


def test_gaps_are_read_from_any_of_our_files(tmp_path: Path):
    def file(name: str, content: object) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    (mir,) = read_gap(file("mir.json", {"mir": {"value": 2.5, "low": 2.0, "high": 3.0}}))
    assert (mir.quantity, mir.value, mir.low, mir.high) == ("mir", 2.5, 2.0, 3.0)
    (gap,) = read_gap(file("gap.json", {"mean": {"centroid_l2": 4.0}, "stderr": {"centroid_l2": 0.5}}))
    assert (gap.low, gap.high) == pytest.approx((4 - 0.98, 4 + 0.98), abs=1e-4)
    (trained,) = read_gap(file("regap.json", {"gap": {"start": {}, "end": {"centroid_l2": 1.5}}}))
    assert (trained.quantity, trained.value, trained.low) == ("centroid_l2", 1.5, None)
    for content in (
        {"a": 1},
        {"mir": {"value": "many"}},
        {"mir": {"value": math.nan}},
        {"mean": {"centroid_l2": 1.0}, "stderr": {"centroid_l2": "wide"}},
    ):
        with pytest.raises(ReportError, match="no finite MIR or centroid_l2"):
            read_gap(file("other.json", content))


def test_what_cannot_be_reported_is_one_sentence(tmp_path: Path):
    run = evaluation(tmp_path / "run")
    with pytest.raises(ReportError, match="at least one run folder"):
        write_report([])
    with pytest.raises(ReportError, match="choose blur, remove, none"):
        write_report([run], redaction="most")
    with pytest.raises(ReportError, match="share a name"):
        write_report([run, run])
    with pytest.raises(ReportError, match="2 files or groups of files with gaps were given for 1 runs"):
        write_report([run], gaps=[[], []])
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ReportError, match="was to be written, but that failed"):
        write_report([run], output_path=blocked / "report")


def test_a_report_needs_no_torch_and_no_network(tmp_path: Path):
    run = evaluation(tmp_path / "run")
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket = refuse\n"
        "from regap_patch.report import write_report\n"
        f"write_report([{str(run)!r}])\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_page_of_too_many_samples_keeps_whole_items(tmp_path: Path):
    run = read_evaluation(evaluation(tmp_path / "run"))
    whole = json.loads(data_block([run], "blur"))
    assert (whole["all"], len(whole["rows"])) == (260, 260)
    data = json.loads(data_block([run], "blur", most=100))
    assert data["all"] == 260
    assert 0 < len(data["rows"]) <= 100
    modes = {row["mode"] for row in data["rows"] if row["benchmark"] == "toy"}
    by_uid = Counter(row["uid"] for row in data["rows"] if row["benchmark"] == "toy")
    assert modes == {"none", "words", "real"}
    assert set(by_uid.values()) == {3}
