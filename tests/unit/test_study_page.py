"""The page of a study: every numeral names its source, and what may not be shown is not."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from page_reader import Folder, Reader, loose_digits, sources
from study_tables import protocol_with, tables, write_study

from regap_patch.errors import ReportError
from regap_patch.study.page_numbers import written
from regap_patch.study.study_page import write_study_page

STRICT = {"td", "th", "caption", "figcaption"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_study(tmp_path_factory.mktemp("study"), tables())
    assert write_study_page(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(study: Path) -> str:
    return (study / "report.html").read_text(encoding="utf-8")


def test_every_numeral_stands_in_an_element_that_names_its_source(page: str):
    assert loose_digits(page) == []
    inside = [shown for shown in sources(page) if STRICT & set(shown.tags)]
    assert len(inside) > 1000
    assert {tag for shown in inside for tag in STRICT & set(shown.tags)} >= {"td", "caption", "figcaption"}
    assert any("tspan" in shown.tags for shown in sources(page))


@pytest.mark.parametrize("tag", sorted(STRICT | {"p"}))
def test_a_planted_numeral_is_found(page: str, tag: str):
    opening = next(
        found for found in (f"<{tag}>", f'<{tag} class="words">', f'<{tag} class="quiet">') if found in page
    )
    planted = page.replace(opening, f"{opening}of 17 ", 1)
    (found,) = loose_digits(planted)
    assert found.startswith("of 17 ")


def test_every_source_holds_the_value_that_is_shown(page: str, study: Path):
    files, found = Folder(study), Counter()
    for shown in sources(page):
        assert shown.style is not None
        assert written(files[shown.source], shown.style) == shown.text, shown
        found[str(shown.source).partition("#")[0]] += 1
    assert set(found) == {"analysis.json", "means.csv", "outcomes.csv", "provenance.json"}


def test_no_estimate_stands_without_its_interval(page: str, study: Path):
    """Means over LLMs and estimates of the analysis, wherever both ends are known."""
    files, shown = Folder(study), {str(one.source) for one in sources(page) if STRICT & set(one.tags)}
    means = {source.removesuffix("/mean") for source in shown if source.endswith("/mean")}
    estimates = {source.removesuffix("/estimate") for source in shown if source.endswith("/estimate")}
    lacking = {
        source
        for source in means | estimates
        if files[f"{source}/low"] not in (None, "") and not {f"{source}/low", f"{source}/high"} <= shown
    }
    assert lacking == set()
    assert len(means) > 100
    assert len(estimates) > 100


def test_denominators_judges_and_limits_are_said(page: str):
    texts = {str(shown.source): shown.text for shown in sources(page)}
    cell = "outcomes.csv#main/llm-1/off/stage2"
    assert texts[f"{cell}/none/unsafe_rate/n"] == "120"
    assert texts[f"{cell}/none/over_refusal_rate/n"] == "20"
    assert texts[f"{cell}/real/vqa_accuracy/n"] == "120"
    assert texts["provenance.json#/protocol/measures/max_new_tokens"] == "24"
    power = [shown for shown in sources(page) if shown.source == "analysis.json#/design/achieved_power"]
    assert {shown.tags[-2] for shown in power} == {"p", "tr"}, "beside the verdicts too"
    for words in ("Judge: the rule world", "one vision tower that all share", "not that there is no effect"):
        assert words in page
    halves = ("controls/image_between_arms", "controls/text_between_arms")
    claim = page[page.index('<section id="claim-c">') : page.index('<section id="claim-a">')]
    assert all(f"analysis.json#/{half}/estimate" in claim for half in halves)


def test_a_changed_value_is_found(page: str, study: Path):
    files = Folder(study)
    shown = next(one for one in sources(page) if one.source == "analysis.json#/claim_c/estimate")
    files["analysis.json#/claim_c/estimate"]
    files.files["analysis.json"]["claim_c"]["estimate"] += 0.01
    assert written(files[str(shown.source)], str(shown.style)) != shown.text


def test_means_are_those_of_the_confirmatory_llms(study: Path):
    files = Folder(study)
    with (study / "outcomes.csv").open(newline="") as file:
        rates = [
            float(row["value"])
            for row in csv.DictReader(file)
            if [row[name] for name in ("variant", "arm", "stage", "condition", "metric")]
            == ["main", "off", "stage2", "blank", "unsafe_rate"]
        ]
    assert len(rates) == 12
    assert float(files["means.csv#main/off/stage2/blank/unsafe_rate"]) == pytest.approx(sum(rates) / 12)
    assert files["means.csv#main/off/stage2/blank/unsafe_rate/llms"] == "12"


def test_llms_of_the_pilot_are_in_no_number(tmp_path: Path, study: Path):
    made = tables()
    (first, *_) = made.outcomes
    made.outcomes += [row._replace(llm=901) for row in made.outcomes if row.llm == first.llm]
    folder = write_study(tmp_path, made)
    write_study_page(folder)
    assert (folder / "means.csv").read_bytes() == (study / "means.csv").read_bytes()
    assert (folder / "report.html").read_bytes() == (study / "report.html").read_bytes()


def test_an_edited_protocol_shows_no_primary_result(tmp_path: Path, page: str):
    folder = write_study(tmp_path, tables(), allowed=False)
    edited = write_study_page(folder).read_text(encoding="utf-8")
    for name in ("estimate", "verdict", "low", "p", "per_llm/1"):
        source = f'data-source="analysis.json#/claim_c/{name}"'
        assert source in page
        assert source not in edited
    assert "by rules that were fixed before" in page
    assert "fixed before." not in edited
    assert "Forest plot of claim C" in page
    assert "Forest plot" not in edited
    assert edited.count("No primary result is shown") == 2
    (words,) = {shown.text for shown in sources(edited) if shown.source == "provenance.json#/primary/why"}
    assert "edited after its commit" in words
    red = [shown for shown in Reader(edited).shown if "No primary result" in shown.text]
    assert all({"alarm", "forbidding"} <= shown.kinds for shown in red)


def test_a_closed_gate_leaves_the_numbers_and_takes_the_verdict(tmp_path: Path):
    page = write_study_page(write_study(tmp_path, tables(tax=-0.1, effect=0.0))).read_text(encoding="utf-8")
    texts = {shown.source: shown.text for shown in sources(page)}
    assert texts["analysis.json#/gate/verdict"] == "closed"
    assert texts["analysis.json#/claim_c/verdict"] == "not testable at this scale"
    assert "analysis.json#/claim_c/verdict_by_interval" in texts
    assert "analysis.json#/claim_c/estimate" in texts


@pytest.mark.parametrize(("tax", "open_by_luck"), [(0.09, True), (0.15, False), (-0.1, False)])
def test_a_gate_that_may_be_open_by_luck_is_called_so(tmp_path: Path, tax: float, open_by_luck: bool):
    folder = write_study(tmp_path, tables(tax=tax))
    gate = json.loads((folder / "analysis.json").read_text())["gate"]
    assert (gate["open"] and not all(gate["excludes_zero"].values())) == open_by_luck
    page = write_study_page(folder).read_text(encoding="utf-8")
    assert ("it may be open by luck" in page) == open_by_luck


def test_all_but_the_protocols_own_claim_is_called_exploratory(page: str):
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    for words in ("Claim A:", "Claim B:", "keeps utility"):
        (row,) = [row for row in rows if words in row]
        assert row.endswith(">exploratory</td>")
    (row,) = [row for row in rows if "Claim C:" in row]
    assert row.endswith(">primary</td>")
    parts = dict(re.findall(r'<section id="([a-z-]+)">(.*?)</section>', page, flags=re.DOTALL))
    roles = [re.findall(r">(decides|exploratory)</td>", row) for row in parts["gate"].split("</tr>")[1:-1]]
    assert roles == [["decides"]] * 2 + [["exploratory"]] * 10
    for name in ("claim-a", "conditions", "utility", "gaps", "arms"):
        captions = re.findall(r"<caption>(.*?)</caption>", parts[name])
        assert captions
        assert all("xploratory" in caption for caption in captions) or "Exploratory.</p>" in parts[name], name
    for name in ("arms", "controls"):
        for row in re.findall(r"<tbody>(.*?)</tbody>", parts[name])[0].split("</tr>")[:-1]:
            assert ">exploratory</td>" in row
    assert set(parts) >= {
        "verdicts",
        "gate",
        "claim-c",
        "claim-a",
        "claim-b",
        "conditions",
        "utility",
        "gaps",
    }


def test_what_an_arm_lacks_is_said(tmp_path: Path, page: str):
    made = tables()
    made.outcomes = [row for row in made.outcomes if (row.arm, row.llm) != ("norm_only", 2)]
    lacking = write_study_page(write_study(tmp_path, made)).read_text(encoding="utf-8")
    assert "What was not measured" not in page
    assert "What was not measured" in lacking
    assert loose_digits(lacking) == []
    texts = [shown.text for shown in sources(lacking) if "/missing/0/" in str(shown.source)]
    assert texts == ["2", "100", "main/llm-2/norm_only/stage1/none/unsafe_rate"]


def test_it_asks_nobody_and_runs_no_script(page: str):
    found = Reader(page)
    policy = next(attributes["content"] for _, attributes in found.tags if attributes.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'; script-src 'none'; style-src 'sha256-")
    assert not [tag for tag, _ in found.tags if tag in ("script", "img", "iframe", "object")]
    names = {name for _, attributes in found.tags for name in attributes}
    assert not {"src", "style", "action", "srcset", "poster", "data"} & names
    assert not [name for name in names if name.startswith("on")]
    anchors = {attributes["id"] for _, attributes in found.tags if "id" in attributes}
    assert {str(found["href"])[1:] for tag, found in found.tags if tag == "a"} <= anchors
    for words in ("prefers-color-scheme: dark", "@media print", "width=device-width"):
        assert words in page


def test_names_are_data(tmp_path: Path):
    folder = write_study(tmp_path, tables())
    path = folder / "provenance.json"
    nasty = "<script>alert(1)</script>\"'>&"
    found = json.loads(path.read_text())
    found["arms"]["pairwise_l2"] = found["protocol"]["name"] = nasty
    path.write_text(json.dumps(found))
    page = write_study_page(folder).read_text(encoding="utf-8")
    assert "<script" not in page
    assert nasty in {shown.text for shown in Reader(page).shown}


def test_a_large_study_is_one_small_file(tmp_path: Path):
    arms = [f"arm_{number}" for number in range(14)]
    protocol = protocol_with(
        llms={"confirmatory": list(range(1, 15)), "exploratory": [1, 2]}, arms={"exploratory": arms}
    )
    folder = write_study(tmp_path, tables(protocol))
    path = write_study_page(folder)
    assert path.stat().st_size < 1_000_000
    assert loose_digits(path.read_text(encoding="utf-8")) == []


def test_what_lacks_is_one_sentence(tmp_path: Path):
    folder = write_study(tmp_path, tables())
    found = json.loads((folder / "analysis.json").read_text())
    del found["claim_c"]["p"]
    (folder / "analysis.json").write_text(json.dumps(found))
    with pytest.raises(ReportError, match=r"analysis\.json#/claim_c/p, but .* has no such value"):
        write_study_page(folder)
    (folder / "provenance.json").unlink()
    with pytest.raises(ReportError, match=r"provenance\.json#"):
        write_study_page(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("value", "style", "text"),
    [
        (0.125, "rate", "12.5"),
        ("0.125", "share", "12.5 %"),
        (-0.031, "points", "-3.1"),
        (0.0004, "p", "< 0.001"),
        (0.95, "level", "95 %"),
        (1234.5, "number", "1234"),
        (0.0123456, "number", "0.0123"),
        (0.00002, "number", "0.00002"),
        (12, "count", "12"),
        (5400, "seconds", "1.5 h"),
        (90, "seconds", "2 min"),
        ([901, 902], "list", "901, 902"),
        (None, "points", "-"),
        ("", "number", "-"),
    ],
)
def test_how_a_value_is_written(value: Any, style: str, text: str):
    assert written(value, style) == text


def test_a_page_needs_no_torch_and_no_network(study: Path):
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket = refuse\n"
        "from regap_patch.study.study_page import write_study_page\n"
        f"write_study_page({str(study)!r})\n"
        "assert not {'torch', 'transformers', 'matplotlib', 'scipy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
