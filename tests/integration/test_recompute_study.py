"""Numbers of a study's page, computed again from verdicts and logs; see `recompute_study`.

STUDY_FOLDER names a study to draw from, RECOMPUTE_SEED the seed of the draw. Without, it is one whose files
are written by code.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from random import Random
from typing import Any

import pytest
from scipy import stats

from regap_patch.cli import main
from regap_patch.study.page_numbers import written
from tests.integration.recompute_study import recompute
from tests.integration.written_study import HARM, written_study

DRAWN = 50
FILES = ("outcomes.csv", "means.csv", "analysis.json")  # the others hold settings and seconds
SLACK = 1e-6  # rows of gap.json were rounded to float32, their means were not
ROUNDED = 5e-5  # so a difference of two numbers of up to 500; one verdict moves a rate by far more
WORDS = ("text", "short", "list")
ELEMENT = re.compile(r'data-source="([^"]*)" data-as="([a-z]+)">([^<]*)<')


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("STUDY_FOLDER")
    return Path(named) if named else written_study(tmp_path_factory.mktemp("whole"))


def elements(study: Path) -> list[tuple[str, str, str]]:
    """(source, style, text) of every measured number of the page."""
    page = (study / "report.html").read_text(encoding="utf-8")
    found = [tuple(map(unescape, element)) for element in ELEMENT.findall(page)]
    measured = (one for one in found if one[0].partition("#")[0] in FILES and "/missing/" not in one[0])
    return [one for one in measured if one[1] not in WORDS]


def texts(value: float | None, style: str) -> set[str]:
    """How the page may write it; more than one where the last digit hangs on how a sum was rounded."""
    if value is None:
        return {written(None, style)}
    slack = SLACK * max(1.0, abs(value))
    return {written(value + shift, style) for shift in (0.0, -slack, slack)}


def wrong_ones(study: Path, some: list[tuple[str, str, str]]) -> list[tuple[str, str, float | None]]:
    """(source, text, number) of elements that show another number."""
    return [
        (source, text, value)
        for source, style, text in dict.fromkeys(some)
        if text not in texts(value := recompute(study, source), style)
    ]


def test_fifty_numbers_of_the_page_come_from_verdicts_and_logs(
    study: Path, capsys: pytest.CaptureFixture[str]
):
    seed = int(os.environ.get("RECOMPUTE_SEED", "20261122"))
    every = elements(study)
    drawn = Random(seed).sample(every, DRAWN)
    wrong = wrong_ones(study, drawn)
    with capsys.disabled():
        print(
            f"\nseed {seed}: {DRAWN - len(wrong)} of {DRAWN} numbers, drawn from {len(every)}, computed again"
        )
    assert not wrong


@pytest.mark.full
def test_every_number_of_the_page_comes_from_verdicts_and_logs(study: Path):
    every = elements(study)
    assert wrong_ones(study, every) == []
    assert len(every) > 500


@pytest.mark.full
def test_and_where_an_exploratory_checkpoint_is_missing(tmp_path: Path):
    study = written_study(tmp_path)
    branches = json.loads((study / "study.json").read_text())["branches"]
    shutil.rmtree(study / branches["main/llm-1/pairwise_l2/measures2"])
    report = ["study", "report", str(tmp_path / "protocol" / "toy.yaml"), "--output_path", str(study)]
    assert main(report) == 0
    every = elements(study)
    assert wrong_ones(study, every) == []
    assert "What was not measured" in (study / "report.html").read_text(encoding="utf-8")


def test_every_row_of_the_tables_comes_from_verdicts_and_logs(study: Path):
    for name, columns in (("outcomes.csv", 6), ("training.csv", 5)):
        with (study / name).open(newline="") as file:
            rows = list(csv.reader(file))
        head, body = rows[0], Random(1).sample(rows[1:], 100)
        for row in body:
            key = "/".join(
                f"llm-{word}" if number == 1 else word or "-" for number, word in enumerate(row[:columns])
            )
            for column, text in zip(head[columns:], row[columns:], strict=True):
                if text and column not in ("stderr", "source"):
                    again = recompute(study, f"{name}#{key}/{column}")
                    assert again == pytest.approx(float(text), rel=SLACK, abs=1e-12), (key, column)


def estimates(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every estimate and correlation within the analysis, by its pointer."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return
    if {"low", "high"} <= value.keys():
        yield path, value
    for name, part in value.items():
        yield from estimates(part, f"{path}/{str(name).replace('/', '~1')}")


def test_the_analysis_is_what_scipy_makes_of_verdicts_and_logs(study: Path):
    found = json.loads((study / "analysis.json").read_text())
    fields = ("estimate", "r", "low", "high", "sd", "n", "clusters", "members")
    seen = 0
    for path, estimate in estimates(found):
        if not estimate.get("n", estimate.get("members")):
            continue  # nothing of it was measured
        for field in fields:
            value = estimate.get(field)
            if value is not None:
                again = recompute(study, f"analysis.json#{path}/{field}")
                assert again == pytest.approx(value, rel=SLACK, abs=ROUNDED), (path, field)
                seen += 1
        if estimate.get("p") is not None and estimate.get("sd"):
            # From the mean and deviation just checked: where arms hardly differ, rounding to float32 moves p.
            t = estimate["estimate"] * math.sqrt(estimate["n"]) / estimate["sd"]
            again = 2 * stats.t.sf(abs(t), estimate["n"] - 1)
            assert again == pytest.approx(estimate["p"], rel=SLACK, abs=SLACK), path
            seen += 1
    assert seen > 500
    for name in ("n", "sd", "achieved_power", "smallest_effect", "units_needed"):
        value = found["design"][name]
        assert recompute(study, f"analysis.json#/design/{name}") == pytest.approx(value, rel=SLACK), name


def test_a_forged_verdict_is_found(study: Path, tmp_path: Path):
    """One verdict turned around moves a rate by one request."""
    study = Path(shutil.copytree(study, tmp_path / "forged"))
    source = "outcomes.csv#main/llm-3/regap/stage2/blank/unsafe_rate"
    branch = json.loads((study / "study.json").read_text())["branches"]["main/llm-3/regap/measures2"]
    path = study / branch / "run" / "verdicts" / "world" / "harm" / "blank.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    row = json.loads(lines[0])
    row["label"] = "safe" if row["label"] == "unsafe" else "unsafe"
    before = [one for one in elements(study) if one[0] == source]
    lines[0] = json.dumps(row) + "\n"
    path.write_text("".join(lines))
    ((_, style, text),) = set(before)
    assert text not in texts(recompute(study, source), style)
    assert math.isclose(abs(recompute(study, source) - float(text) / 100), 1 / HARM, abs_tol=1e-3)
