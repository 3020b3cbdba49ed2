"""The quickstart's page in a real browser: what it says first, and that nobody is asked for anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regap_patch.study import quickstart
from tests.integration.written_quickstart import Written


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quickstart, "run_study", Written())
    return quickstart.run_quickstart(tmp_path)


def test_it_opens_on_a_narrow_screen_and_says_what_it_cannot(browser: Any, report: Path):
    page = browser.new_page(viewport={"width": 380, "height": 800})
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: errors.append(message.text))
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 380
    assert "One language model proves nothing" in page.locator('[role="note"]').inner_text()
    assert page.locator("#asserted td:has-text('holds')").count() == 5
    labels = page.locator("#refusals svg text[text-anchor=end]").all()
    assert len(labels) >= 8
    left = page.locator("#refusals svg").bounding_box()["x"]
    assert all(label.bounding_box()["x"] >= left for label in labels)  # no name is cut off
    assert requests == [report.as_uri()]
    assert errors == []
    page.close()
