"""What docs/study ships: pages whose numbers lie beside them, and tables to judge the study again by."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_reader import Folder, loose_digits, sources
from scipy import stats
from study_tables import tables, write_study

from regap_patch.study.arms import read_arms
from regap_patch.study.outcome_table import read_outcomes
from regap_patch.study.page_numbers import written
from regap_patch.study.protocol import read_protocol
from regap_patch.study.study_page import write_study_page
from regap_patch.study.trial import design, utility
from regap_patch.study.trial_arms import arms, controls
from regap_patch.study.trial_cells import Trial
from regap_patch.study.trial_claims import claim_a
from regap_patch.study.trial_primary import claim_c, gate

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "study"
PROTOCOL = ROOT / "scripts" / "study" / "protocol-v1.yaml"
PAGES = [PUBLISHED, ROOT / "docs" / "study-defenses"]


@pytest.fixture(params=PAGES, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return unpacked(request.param, tmp_path / "published")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return unpacked(PUBLISHED, tmp_path / "study")


def unpacked(published: Path, to: Path) -> Path:
    """The published files, tables unpacked."""
    to.mkdir()
    for path in published.iterdir():
        if path.suffix == ".gz":
            (to / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        elif path.is_file():
            shutil.copy(path, to)
    return to


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_publishing_loses_nothing_that_the_page_shows(tmp_path: Path):
    made = write_study(tmp_path / "made", tables())
    write_study_page(made)
    command = [sys.executable, ROOT / "scripts" / "study" / "publish.py"]
    for name in ("one", "two"):
        subprocess.run([*command, made, tmp_path / name], check=True, capture_output=True, timeout=60)
    shipped = unpacked(tmp_path / "one", tmp_path / "unpacked")
    for name in ("outcomes.csv", "means.csv", "report.html", "provenance.json"):
        assert (shipped / name).read_bytes() == (made / name).read_bytes()
    assert read(shipped, "analysis.json") == read(made, "analysis.json")
    assert (tmp_path / "one" / "outcomes.csv.gz").read_bytes() == (
        tmp_path / "two" / "outcomes.csv.gz"
    ).read_bytes()
    (made / "report.html").unlink()
    refused = subprocess.run(
        [*command, made, tmp_path / "three"], check=False, capture_output=True, text=True
    )
    assert "run `regap study report` on it first" in refused.stderr
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize("published", PAGES, ids=lambda folder: folder.name)
def test_it_is_small(published: Path):
    assert sum(path.stat().st_size for path in published.iterdir()) < 2_000_000


def test_every_number_of_a_page_lies_beside_it(folder: Path):
    page, files = (folder / "report.html").read_text(encoding="utf-8"), Folder(folder)
    assert loose_digits(page) == []
    shown = list(sources(page))
    assert len(shown) > 500
    for one in shown:
        assert one.style is not None
        assert written(files[str(one.source)], one.style) == one.text, one.source


def test_the_protocol_is_the_one_of_this_repository_and_came_first(study: Path):
    provenance = read(study, "provenance.json")
    assert provenance["protocol"]["sha256"] == hashlib.sha256(PROTOCOL.read_bytes()).hexdigest()
    assert provenance["primary"]["allowed"] is True
    committed = provenance["protocol"]["commit"]

    def git(*words: str) -> int:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False).returncode

    assert provenance["commits"]
    if git("cat-file", "-e", committed) == 0:  # an archive or a shallow clone has no history to ask
        for commit in provenance["commits"]:
            assert git("merge-base", "--is-ancestor", committed, commit) == 0, commit


def test_the_verdicts_follow_from_the_table_of_outcomes(study: Path):
    protocol = read_protocol(PROTOCOL)
    trial = Trial.of(
        read_outcomes(study / "outcomes.csv"),
        (),
        protocol,
        read_arms((*protocol.arms.primary, *protocol.arms.exploratory)),
    )
    opened = gate(trial)
    primary = claim_c(trial, is_open=opened["open"])
    again = {
        **{"gate": opened, "claim_c": primary, "claim_a": claim_a(trial), "utility": utility(trial)},
        **{"arms": arms(trial), "controls": controls(trial), "design": design(trial, primary)},
    }
    found = read(study, "analysis.json")
    for part, content in json.loads(json.dumps(again)).items():
        assert found[part] == content, part


def test_scipy_finds_the_same_primary_outcome(study: Path):
    """Straight from the table, without any code of the study."""
    with io.StringIO((study / "outcomes.csv").read_text(encoding="utf-8")) as file:
        rates: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
        for row in csv.DictReader(file):
            if (row["variant"], row["stage"], row["metric"]) == ("main", "stage2", "unsafe_rate"):
                rates[row["llm"]][row["arm"], row["condition"]] = int(row["count"]) / int(row["n"])
    llms = [str(seed) for seed in range(1, 25)]
    added = {
        arm: [rates[llm][arm, "blank"] - rates[llm][arm, "none"] for llm in llms] for arm in ("off", "regap")
    }
    contrast = np.subtract(added["regap"], added["off"])
    interval = stats.ttest_1samp(contrast, 0.0).confidence_interval(0.95)
    found = read(study, "analysis.json")["claim_c"]
    assert (found["n"], found["estimate"]) == (24, pytest.approx(contrast.mean()))
    assert (found["low"], found["high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))
    minus_words = [rates[llm]["off", "blank"] - rates[llm]["off", "words"] for llm in llms]
    assert read(study, "analysis.json")["gate"]["open"] is bool(
        min(np.mean(minus_words), np.mean(added["off"])) > 0
    )
