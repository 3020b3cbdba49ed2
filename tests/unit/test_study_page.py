"""The page of a study: every numeral names its source, and what may not be shown is not."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from study_tables import protocol_with, tables, write_study

from regap_patch.errors import ReportError
from regap_patch.study.page_numbers import written
from regap_patch.study.study_page import write_study_page

STRICT = {"td", "th", "caption", "figcaption"}
VOID = {"meta", "link", "br", "line", "circle", "polygon", "polyline", "path"}
KEYS = {  # columns of a key, and the one that a key alone means
    "outcomes.csv": (("variant", "llm", "arm", "stage", "condition", "metric"), "value"),
    "means.csv": (("variant", "arm", "stage", "condition", "metric"), "mean"),
    "training.csv": (("variant", "llm", "arm", "stage", "step"), ""),
}


class Shown(NamedTuple):
    """A text of the page: the elements that it stands in, from the outside, and the nearest source."""

    text: str
    tags: tuple[str, ...]
    kinds: frozenset[str]
    source: str | None
    style: str | None


class Reader(HTMLParser):
    """Every text of a page with where it stands; knows nothing of how pages are written."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.stack: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[Shown] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if not data.strip():
            return
        attributes = self.stack[-1][1]
        kinds = frozenset(word for _, found in self.stack for word in str(found.get("class", "")).split())
        tags = tuple(name for name, _ in self.stack)
        self.shown.append(Shown(data, tags, kinds, attributes.get("data-source"), attributes.get("data-as")))


def loose_digits(page: str) -> list[str]:
    """Texts of the body with a digit and without a source of their own; ticks of axes alone may have one."""
    return [
        shown.text
        for shown in Reader(page).shown
        if re.search(r"\d", shown.text)
        and shown.source is None
        and "body" in shown.tags
        and "tick" not in shown.kinds
    ]


def sources(page: str) -> Iterator[Shown]:
    return (shown for shown in Reader(page).shown if shown.source is not None)


class Folder:
    """Looks a source up in the files, by the rule that the documentation gives."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Any] = {}
        self.folder = folder

    def __getitem__(self, source: str) -> Any:
        name, key = source.split("#", 1)
        if name not in self.files:
            self.files[name] = self._read(name)
        found = self.files[name]
        if name in KEYS:
            size, parts = len(KEYS[name][0]), key.split("/")
            column = parts[size] if len(parts) > size else KEYS[name][1]
            return found["/".join(parts[:size])][column]
        for name in (part.replace("~1", "/").replace("~0", "~") for part in key.split("/")[1:]):
            found = found[int(name)] if isinstance(found, list) else found[name]
        return found

    def _read(self, name: str) -> Any:
        path = self.folder / name
        if name not in KEYS:
            return json.loads(path.read_text())
        with path.open(newline="") as file:
            return {self._key(name, row): row for row in csv.DictReader(file)}

    def _key(self, name: str, row: dict[str, str]) -> str:
        values = (f"llm-{row[one]}" if one == "llm" else row[one] or "-" for one in KEYS[name][0])
        return "/".join(values)


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


def test_all_but_the_protocols_own_claim_is_called_exploratory(page: str):
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    for words in ("Claim A:", "Claim B:", "keeps utility"):
        (row,) = [row for row in rows if words in row]
        assert row.endswith(">exploratory</td>")
    (row,) = [row for row in rows if "Claim C:" in row]
    assert row.endswith(">primary</td>")
    parts = dict(re.findall(r'<section id="([a-z-]+)">(.*?)</section>', page, flags=re.DOTALL))
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
