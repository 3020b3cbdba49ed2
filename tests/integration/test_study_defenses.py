"""`regap study report` of a study of defences, computed again from verdicts and traces.

DEFENSES_FOLDER names a study to compute again. Without, it is one whose files are written by code.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from regap_patch.cli import main
from regap_patch.study.page_numbers import written
from tests.integration.recompute_statistics import over_llms
from tests.integration.written_defenses import MODES, written_defenses
from tests.unit.page_reader import Folder, loose_digits, sources

LLMS, ARMS, Z = (1, 2, 3), ("off", "regap"), 1.959963984540054
CLASSES = {"refusal_rate": {"refusal"}, "incoherent_rate": {"incoherent", "empty"}}
KINDS = {"over_refusal_rate": "benign", "vqa_accuracy": "utility"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_defenses(tmp_path_factory.mktemp("defences"))


@pytest.fixture(scope="module")
def study(planted: Path) -> Path:
    return Path(os.environ.get("DEFENSES_FOLDER", planted))


@pytest.fixture(scope="module")
def found(study: Path) -> dict[str, Any]:
    return json.loads((study / "analysis.json").read_text())


def run_of(study: Path, llm: int, arm: str, stack: str) -> Path:
    branches = json.loads((study / "study.json").read_text())["branches"]
    return study / branches[f"main/llm-{llm}/{arm}/defended/{stack}"] / "run"


@cache
def lines(run: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(run.glob(pattern)) for line in path.read_text().splitlines()]


@cache
def events(study: Path, llm: int, arm: str, stack: str, metric: str, mode: str) -> dict[str, bool]:
    """What happened to each item, from the verdicts' lines."""
    run = run_of(study, llm, arm, stack)
    kind = KINDS.get(metric, "harm")
    asked = {row["uid"] for row in lines(run, "samples/*.jsonl") if row["kind"] == kind}
    judge = "scorer" if kind == "utility" else "world"
    rows = [row for row in lines(run, f"verdicts/{judge}/*/{mode}.jsonl") if row["uid"] in asked]
    if metric == "vqa_accuracy":
        return {row["uid"]: row["score"] == 1 for row in rows}
    if metric == "unsafe_rate":
        return {row["uid"]: row["label"] == "unsafe" for row in rows}
    counted = CLASSES.get(metric, {"refusal", "empty"})
    return {row["uid"]: row["response_class"] in counted for row in rows}


def share(happened: dict[str, bool]) -> float:
    return sum(happened.values()) / len(happened)


def paired_interval(one: dict[str, bool], other: dict[str, bool]) -> tuple[float, float]:
    """Newcombe's method for pairs, from its paper: other minus one."""
    n = len(one)
    a, b, c, d = (
        sum(one[uid] is first and other[uid] is second for uid in one)
        for first, second in ((True, True), (True, False), (False, True), (False, False))
    )

    def wilson(k: int) -> tuple[float, float]:
        middle, reach = 2 * k + Z**2, Z * math.sqrt(Z**2 + 4 * k * (1 - k / n))
        return (middle - reach) / (2 * (n + Z**2)), (middle + reach) / (2 * (n + Z**2))

    p1, p2 = (a + b) / n, (a + c) / n
    (l1, u1), (l2, u2) = wilson(a + b), wilson(a + c)
    product = a * d - b * c
    below = (a + b) * (c + d) * (a + c) * (b + d)
    phi = 0.0 if below == 0 else (max(product - n / 2, 0) if product > 0 else product) / math.sqrt(below)
    low = math.sqrt((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2)
    high = math.sqrt((u2 - p2) ** 2 - 2 * phi * (u2 - p2) * (p1 - l1) + (p1 - l1) ** 2)
    return p2 - p1 - low, p2 - p1 + high


def test_every_comparison_is_there(found):
    stacks = len(found["stacks"])
    assert found["stacks"][0] == "none"
    for part, count in (
        ("against_none", 2 * stacks - 2),
        ("between_arms", stacks),
        ("interaction", stacks - 1),
    ):
        for where in [("unsafe_rate", mode) for mode in MODES] + [("vqa_accuracy", "real")]:
            assert sum((row["metric"], row["condition"]) == where for row in found[part]) == count
    assert not any(
        row["metric"] == "vqa_accuracy" and row["condition"] != "real" for row in found["interaction"]
    )
    assert (found["design"]["n"], found["label"]) == (3, "exploratory")
    assert found["design"]["note"] == "3 LLMs: too few to say anything of others"


def test_each_defence_against_none_comes_from_the_verdicts(study: Path, found):
    for row in found["against_none"]:
        where = (row["metric"], row["condition"])
        pairs = {
            llm: [events(study, llm, row["arm"], stack, *where) for stack in ("none", row["stack"])]
            for llm in LLMS
        }
        values = {llm: share(other) - share(one) for llm, (one, other) in pairs.items()}
        for name, value in over_llms(values, 0.95).items():
            assert row[name] == pytest.approx(value, abs=1e-9), (row, name)
        for paired in row["paired"]:
            one, other = pairs[paired["llm"]]
            assert (paired["low"], paired["high"]) == pytest.approx(paired_interval(one, other), abs=1e-9)
            assert paired["estimate"] == pytest.approx(values[paired["llm"]], abs=1e-12)


def test_regap_behind_each_defence_and_the_interaction_come_from_the_verdicts(study: Path, found):
    def change(llm: int, stack: str, row: dict[str, Any]) -> float:
        off, treated = (
            share(events(study, llm, arm, stack, row["metric"], row["condition"])) for arm in ARMS
        )
        return treated - off

    for part in ("between_arms", "interaction"):
        for row in found[part]:
            less = {llm: change(llm, "none", row) if part == "interaction" else 0.0 for llm in LLMS}
            values = {llm: change(llm, row["stack"], row) - less[llm] for llm in LLMS}
            expected = over_llms(values, 0.95)
            for name in ("estimate", "sd", "low", "high"):
                assert row[name] == pytest.approx(expected[name], abs=1e-9), (part, row, name)


def test_what_fired_is_counted_over_all_llms(study: Path, found):
    for row in found["fired"]:
        runs = [run_of(study, llm, row["arm"], row["stack"]) for llm in LLMS]
        traces = [line for run in runs for line in lines(run, f"trace/*/{row['condition']}/steps-0.jsonl")]
        acted = sum(line["defenses"][row["defense"]]["fired"] for line in traces)
        assert (row["count"], row["n"]) == (acted, len(traces))
    for row in found["generations"]:
        runs = [run_of(study, llm, row["arm"], row["stack"]) for llm in LLMS]
        taken = [line["generations"] for run in runs for line in lines(run, "trace/*/*/steps-0.jsonl")]
        assert row["mean"] == pytest.approx(sum(taken) / len(taken))


def test_the_table_has_the_arms_of_defended_models(study: Path, found):
    with (study / "outcomes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    arms = {row["arm"] for row in rows if row["condition"] == "blank"}
    assert arms == {*ARMS, *(f"{arm}+{stack}" for arm in ARMS for stack in found["stacks"])}
    assert {row["stage"] for row in rows if "+" in row["arm"]} == {"stage2"}


def test_every_numeral_of_the_page_names_its_source(study: Path):
    page, files = (study / "report.html").read_text(encoding="utf-8"), Folder(study)
    assert loose_digits(page) == []
    shown = list(sources(page))
    assert len(shown) > 1000
    for one in shown:
        assert written(files[str(one.source)], str(one.style)) == one.text, one
    estimates = {str(one.source) for one in shown if re.search(r"/estimate$", str(one.source))}
    assert len(estimates) > 300
    every = {str(one.source) for one in shown}
    for source in estimates:
        assert {source.replace("/estimate", end) for end in ("/low", "/high")} <= every, source


def test_nothing_is_called_primary(study: Path):
    provenance = json.loads((study / "provenance.json").read_text())
    assert not provenance["primary"]["allowed"]
    assert "all of it is exploratory" in provenance["primary"]["why"]
    assert provenance["commits"]


def test_the_command_says_what_changed_and_refuses_what_is_not_whole(planted: Path, capsys):
    words = ["study", "report", str(planted.parent / "protocol" / "toy.yaml"), "--output_path", str(planted)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert re.search(r"^off\+cmrm, blank +unsafe_rate [+-]\d+\.\d \([+-][\d.]+ to [+-][\d.]+\)$", said, re.M)
    branches = json.loads((planted / "study.json").read_text())["branches"]
    record = planted / branches["main/llm-2/regap/defended/ecso"] / "node.json"
    hidden = record.rename(record.with_name("hidden"))
    try:
        assert main(words) == 1
    finally:
        hidden.rename(record)
    assert "'main/llm-2/regap/defended/ecso' is not made yet" in capsys.readouterr().err
