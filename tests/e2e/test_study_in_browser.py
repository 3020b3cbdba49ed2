"""The study's page in a real browser: whole on any screen, in dark and on paper, and nobody is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from regap_patch.study.study_page import write_study_page
from tests.unit.study_tables import tables, write_study


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study_page(write_study(tmp_path_factory.mktemp("study"), tables()))


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[SimpleNamespace]:
    page = browser.new_page(color_scheme="dark", viewport={"width": 380, "height": 800})
    seen = SimpleNamespace(page=page, requests=[], errors=[])
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("console", lambda message: seen.errors.append(message.text))
    page.goto(report.as_uri())
    yield seen
    page.close()


def test_it_is_whole_on_a_narrow_screen_in_the_dark(opened: SimpleNamespace, report: Path):
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") == 380
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    figures = page.locator("svg.figure")
    assert figures.count() == 4
    assert all(
        figure.bounding_box()["width"] > 500 for figure in figures.all()
    )  # it scrolls; words stay legible
    assert page.locator(".course").first.evaluate("e => getComputedStyle(e).fill") == "none"
    assert opened.requests == [report.as_uri()]
    assert opened.errors == []


def test_a_number_that_is_pointed_at_names_its_source(opened: SimpleNamespace):
    number = opened.page.locator('[data-source="analysis.json#/claim_c/estimate"]').first
    number.hover()
    shown = number.evaluate("e => getComputedStyle(e, '::after').content")
    assert shown == '"analysis.json#/claim_c/estimate"'


def test_keys_reach_what_scrolls_and_what_unfolds(opened: SimpleNamespace):
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdicts"
    page.keyboard.press("Enter")
    assert page.url.endswith("#verdicts")
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.evaluate("e => e.open")
    assert page.locator(".wide").evaluate_all("found => found.every(e => e.tabIndex === 0)")


def test_paper_takes_whole_tables(opened: SimpleNamespace):
    opened.page.emulate_media(media="print", color_scheme="light")
    assert opened.page.locator("nav").evaluate("e => getComputedStyle(e).display") == "none"
    assert opened.page.locator(".wide").first.evaluate("e => getComputedStyle(e).overflowX") == "visible"
