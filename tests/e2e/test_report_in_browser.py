"""The report in a real browser: it asks nobody for anything, and what a model said stays text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from regap_patch.records import Sample
from regap_patch.report.writing import write_report
from tests.unit.evaluations import Folder, number_of

ATTACK = (
    "<script>window.attacked = 'script'</script>"
    "</script><script>window.attacked = 'closed'</script>"
    "<img src=x onerror=\"window.attacked = 'image'\"><svg onload=\"window.attacked = 'svg'\"></svg>"
    "<iframe src='https://example.invalid/'></iframe><link rel=stylesheet href=https://example.invalid/a.css>"
)
MANY = 3000


def say(sample: Sample) -> str:
    return f"{ATTACK} number {number_of(sample)}"


def run(path: Path, name: str, count: int) -> Path:
    folder = Folder(path / name).ask("toy", count, modes=("none", "real"), scenarios=(ATTACK, "y"))
    folder.ask("twins", 30, kind="benign", modes=("real",)).answer(say)
    folder.judge(
        "one",
        lambda sample, answer: {
            "label": "unsafe" if sample.kind == "harm" and number_of(sample) % 4 == 0 else "safe",
            "response_class": "unsafe" if sample.kind == "harm" and number_of(sample) % 4 == 0 else "refusal",
            "error": ATTACK,
        },
    )
    return folder.save()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    return write_report([run(root, f"run {ATTACK[:8].replace('/', '')}", MANY // 2)])[0]


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[SimpleNamespace]:
    page = browser.new_page(color_scheme="dark")
    seen = SimpleNamespace(page=page, requests=[], failures={}, errors=[])
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("requestfailed", lambda request: seen.failures.update({request.url: request.failure}))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("console", lambda message: seen.errors.append(message.text))
    page.goto(report.as_uri())
    page.wait_for_selector("#list details")
    yield seen
    page.close()


def test_no_request_leaves_the_page(opened: SimpleNamespace, report: Path):
    opened.page.locator("#list summary").first.click()
    for section in opened.page.locator("main section").all():
        section.scroll_into_view_if_needed()
    opened.page.wait_for_timeout(200)
    assert opened.requests == [report.as_uri()]
    assert opened.errors == []


def test_nothing_that_a_model_said_runs(opened: SimpleNamespace):
    page = opened.page
    page.locator("#reveal").check()
    for number in range(3):
        page.locator("#list summary").nth(number).click()
    page.wait_for_timeout(200)
    assert ATTACK in page.locator("#list .text").nth(1).inner_text()
    assert page.evaluate("window.attacked") is None
    assert page.locator("img, iframe, main script, main link").count() == 0


def test_the_policy_holds_even_against_markup_in_the_page(opened: SimpleNamespace):
    """As if escaping had failed: a script, a handler and a request put into the document."""
    opened.page.evaluate("html => { document.getElementById('list').innerHTML = html; }", ATTACK)
    opened.page.evaluate(
        "() => { const s = document.createElement('img'); s.src = 'https://example.invalid/x.png';"
        " document.body.append(s); }"
    )
    opened.page.wait_for_timeout(300)
    assert opened.page.evaluate("window.attacked") is None
    assert any("Content Security Policy" in error for error in opened.errors)
    asked = [url for url in opened.requests if url.startswith("https:")]
    assert asked
    assert [opened.failures.get(url) for url in asked] == ["csp"] * len(asked)


def test_harmful_answers_are_blurred_until_asked_for(opened: SimpleNamespace):
    page = opened.page
    page.select_option("select[name=class]", "unsafe")
    page.locator("#list summary").first.click()
    texts = page.locator("#list .text")
    assert [texts.nth(n).evaluate("e => getComputedStyle(e).filter") for n in range(2)] == ["blur(6px)"] * 2
    texts.nth(1).focus()
    page.keyboard.press("Enter")
    assert texts.nth(1).evaluate("e => getComputedStyle(e).filter") == "none"
    assert texts.nth(0).evaluate("e => getComputedStyle(e).filter") == "blur(6px)"


def test_thousands_of_samples_are_filtered_and_paged_by_keys(opened: SimpleNamespace):
    page = opened.page
    count = page.locator("#count")
    assert count.inner_text().startswith(f"{MANY + 30} of {MANY + 30} samples, page 1 of 61")
    assert page.locator("#list details").count() == 50
    page.select_option("select[name=mode]", "real")
    page.select_option("select[name=benchmark]", "toy")
    assert count.inner_text().startswith(f"{MANY // 2} of")
    page.select_option("select[name=class]", "unsafe")
    assert count.inner_text().startswith(f"{MANY // 8} of")
    page.keyboard.press("Escape")
    page.locator("#list summary").first.focus()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    assert page.locator("#list details").nth(1).evaluate("e => e.open")
    page.keyboard.press("n")
    assert "page 2 of 8" in count.inner_text()
    page.keyboard.press("/")
    page.keyboard.type("toy/test/0008")
    assert count.inner_text().startswith("1 of")


def test_it_is_dark_where_the_reader_wants_it(opened: SimpleNamespace, browser: Any, report: Path):
    light = browser.new_page(color_scheme="light")
    light.goto(report.as_uri())
    grounds = [
        page.evaluate("getComputedStyle(document.body).backgroundColor") for page in (opened.page, light)
    ]
    light.close()
    assert grounds == ["rgb(20, 24, 29)", "rgb(255, 255, 255)"]
