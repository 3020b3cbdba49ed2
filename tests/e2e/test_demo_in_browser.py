"""The demo in a real browser: a comparison from upload to export, hostile words, phones, dark mode, keys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="no gradio: pip install 'regap[demo]'")

from regap_patch.demo.requests import Request, asked
from regap_patch.study.scenes import held_out_scenes, paint
from tests.contract.tiny_llava import make_model
from tests.integration.demo_client import Served, scripted
from tests.integration.demo_server import HOSTILE, REFUSAL

WAIT = 60_000  # milliseconds; models are loaded at the first request
NAMED = """() => [...document.querySelectorAll('input, textarea, button, select, [role=img]')]
  .filter(e => e.offsetParent !== null && e.type !== 'hidden' && !e.ariaHidden)
  .filter(e => !(e.getAttribute('aria-label') || e.title || e.textContent.trim() || e.closest('label')
                 || (e.labels && e.labels.length) || e.getAttribute('aria-labelledby')))
  .map(e => e.outerHTML.slice(0, 160))"""


@pytest.fixture(scope="module")
def checkpoints(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two LLaVAs that differ in their projector, the first with a band of gaps beside it."""
    import torch

    root = tmp_path_factory.mktemp("demo")
    model = make_model(tiny).eval()
    folders = root / "model-left", root / "model-right"
    for folder in folders:
        model.save_pretrained(folder)
        for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(tiny.llama / name, folder / name)
        with torch.no_grad():
            for value in model.model.mm_projector.parameters():
                value.mul_(2)
    rows = [{"name": str(n), "centroid_l2": 1 + n / 10, "pairwise_sq": 4 + n} for n in range(20)]
    (folders[0] / "gap.json").write_text(json.dumps({"schema": "regap.gap/1", "samples": rows}))
    return folders


@pytest.fixture(scope="module")
def real(checkpoints: tuple[Path, Path]) -> Iterator[Served]:
    left, right = map(str, checkpoints)
    line = [
        "-m",
        "regap_patch.cli",
        "demo",
        "--left",
        left,
        "--right",
        right,
        "--device",
        "cpu",
        "--port",
        "0",
    ]
    with Served(line) as served:
        yield served


@pytest.fixture(scope="module")
def toy() -> Iterator[Served]:
    with Served(scripted(0.15)) as served:
        yield served
        assert served.lookups == []


class Watched:
    """A page of its own context, and all that it asks for or complains of."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.context = browser.new_context(accept_downloads=True, **context)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.address = address
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: self.requests.append(socket.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on(
            "console",
            lambda line: (
                self.complaints.append(line.text) if "Content Security Policy" in line.text else None
            ),
        )
        self.page.goto(address)
        self.page.locator("#ask").wait_for(timeout=WAIT)

    def ask(self, prompt: str) -> None:
        self.page.locator("#prompt textarea").fill(prompt)
        self.page.locator("#ask").click()

    def choose(self, mode: str) -> None:
        self.page.locator("#mode").get_by_label(mode, exact=True).check()

    def finished(self) -> None:
        for side in ("left", "right"):
            self.page.locator(f"#{side}-signs .demo-numbers, #{side}-signs .demo-error").first.wait_for(
                timeout=WAIT
            )
        self.page.locator("#export:not([disabled])").first.wait_for(timeout=WAIT)

    def said(self, side: str) -> str:
        return str(self.page.locator(f"#{side}-text textarea").input_value())

    def outside(self) -> list[str]:
        return [url for url in self.requests if not url.startswith((self.address, "data:", "blob:"))]

    def close(self) -> None:
        assert self.outside() == []
        assert self.complaints == []
        self.context.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "scene.png"
    Image.fromarray(paint(held_out_scenes()[0], 112)).save(path)
    return path


def test_from_upload_to_export(browser: Any, real: Served, picture: Path, tmp_path: Path):
    watched = Watched(browser, real.address, viewport={"width": 1280, "height": 1400})
    page = watched.page
    page.set_input_files("#picture input[type=file]", str(picture))
    page.locator("#shown").get_by_text("your picture, 112 x 112").wait_for(timeout=WAIT)
    watched.ask("How many shapes are there?")
    watched.finished()
    page.locator("#right-signs svg.demo-bar").first.wait_for(timeout=WAIT)
    for side in ("left", "right"):
        assert watched.said(side)
        assert page.locator(f"#{side}-signs .demo-badge").count() == 2  # refusal or not, and the judge's
        assert page.locator(f"#{side}-signs svg.demo-bar").count() == 2
    assert page.locator("#left-signs .band").count() == 2
    assert page.locator("#right-signs .band").count() == 0
    shown = {page.locator("#shown p").inner_text()}
    for mode in ("blank", "noise", "none"):
        watched.choose(mode)
        page.locator("#shown").get_by_text(
            "alone" if mode == "none" else f"{mode} picture, 112 x 112"
        ).wait_for(timeout=WAIT)
        shown.add(page.locator("#shown p").inner_text())
    assert len(shown) == 4
    watched.ask("How many shapes are there?")
    page.locator("#left-signs").get_by_text("No picture is shown").wait_for(timeout=WAIT)
    watched.finished()
    watched.choose("real")
    page.get_by_text("Gap by layer").click()
    page.locator("#measure").click()
    page.locator("#curve svg.demo-curve polyline").first.wait_for(timeout=WAIT, state="attached")
    assert page.locator("#curve svg.demo-curve polyline").count() == 2
    with page.expect_download(timeout=WAIT) as download:
        page.locator("#export").click()
    file = tmp_path / "export.html"
    download.value.save_as(file)
    assert download.value.suggested_filename.endswith(".html")
    watched.close()
    alone = browser.new_page()
    asked: list[str] = []
    alone.on("request", lambda request: asked.append(request.url))
    alone.goto(file.as_uri())
    assert "A comparison of two models" in alone.title()
    assert "[redacted: 26 characters]" in alone.locator("#asked").inner_text()
    assert asked == [file.as_uri()]
    alone.close()


def test_what_is_shown_is_what_is_asked(browser: Any, toy: Served):
    watched = Watched(browser, toy.address)
    watched.choose("noise")
    watched.page.locator("#shown").get_by_text("noise picture").wait_for(timeout=WAIT)
    watched.ask("fold a blorp")
    watched.finished()
    drawn = asked(Request("fold a blorp", mode="noise")).picture_sha256
    watched.page.locator("#shown").get_by_text(f"SHA-256 {drawn[:16]}").wait_for(timeout=WAIT)
    watched.close()


def test_both_columns_grow(browser: Any, toy: Served):
    watched = Watched(browser, toy.address)
    watched.choose("none")
    watched.ask("fold one two three four five six seven eight nine ten eleven twelve")
    seen: dict[str, set[str]] = {"left": set(), "right": set()}
    while watched.page.locator("#left-signs .demo-numbers").count() == 0:
        for side, texts in seen.items():
            texts.add(watched.said(side))
        watched.page.wait_for_timeout(100)
    assert min(map(len, seen.values())) >= 4
    watched.finished()
    watched.close()


def test_hostile_words_stay_inert(browser: Any, toy: Served):
    watched = Watched(browser, toy.address)
    watched.choose("none")
    title = watched.page.title()
    watched.ask(f"hostile {HOSTILE}")
    watched.finished()
    assert watched.said("right") == HOSTILE
    watched.page.locator("#ask-modes").click()
    watched.page.locator("#modes td").get_by_text("irrelevant", exact=True).wait_for(timeout=WAIT)
    assert "<script>" in watched.page.locator("#modes").inner_text()
    watched.page.wait_for_timeout(500)
    assert watched.page.title() == title
    assert not [url for url in watched.requests if url.endswith("/x")]
    assert watched.page.locator("img[src=x]").count() == 0
    watched.page.locator("#stop").click()
    watched.close()


def test_one_column_dies_and_the_other_answers(browser: Any, toy: Served):
    watched = Watched(browser, toy.address)
    watched.choose("none")
    watched.ask("die")
    watched.page.locator("#right-signs [role=alert]").wait_for(timeout=WAIT)
    assert "RuntimeError: the device <b>is gone</b>" in watched.page.locator("#right-signs").inner_text()
    watched.finished()
    assert watched.said("left") == "die"
    watched.close()


def test_a_bad_upload_is_a_sentence(browser: Any, toy: Served, tmp_path: Path):
    bad = tmp_path / "text.png"
    bad.write_text("this is text")
    watched = Watched(browser, toy.address)
    watched.page.set_input_files("#picture input[type=file]", str(bad))
    watched.page.locator("#notice [role=alert]").wait_for(timeout=WAIT)
    assert "does not open as a picture" in watched.page.locator("#notice").inner_text()
    watched.page.locator("#picture input[type=file]").wait_for(timeout=WAIT, state="attached")  # empty again
    watched.close()


def test_with_keys_alone(browser: Any, toy: Served):
    watched = Watched(browser, toy.address)
    page = watched.page
    page.locator("#mode input").first.focus()
    page.keyboard.press("Tab")  # from real to none
    page.keyboard.press("Space")
    page.locator("#prompt textarea").focus()
    page.keyboard.type("make a zorp")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "ask":
            break
    page.keyboard.press("Enter")
    watched.finished()
    assert watched.said("right") == REFUSAL
    assert page.locator("#right-signs .demo-badge.refusal").count() == 1
    assert page.evaluate(NAMED) == []
    watched.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser: Any, toy: Served, scheme: str):
    watched = Watched(browser, toy.address, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = watched.page
    watched.choose("none")
    watched.ask("fold a blorp")
    watched.finished()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    left, right = (page.locator(f"#{side}").bounding_box() for side in ("left", "right"))
    assert right["y"] >= left["y"] + left["height"]  # one below the other
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground.strip("rgba()").split(",")[:3])) < 300) == (scheme == "dark")
    watched.close()


def test_a_closed_tab_leaves_the_line(browser: Any, toy: Served):
    gone, here = Watched(browser, toy.address), Watched(browser, toy.address)
    gone.choose("none")
    gone.ask("word " * 400)
    gone.page.wait_for_function("document.querySelector('#left-text textarea').value !== ''", timeout=WAIT)
    gone.close()
    here.choose("none")
    here.ask("fold a blorp")
    here.page.wait_for_function(
        "document.querySelector('#left-text textarea').value === 'fold a blorp'", timeout=20_000
    )
    here.close()


def test_history_brings_a_comparison_back(browser: Any, toy: Served):
    watched = Watched(browser, toy.address)
    watched.choose("none")
    for prompt in ("fold one", "fold two"):
        watched.ask(prompt)
        watched.page.wait_for_function(
            "p => document.querySelector('#history input').value.endsWith(p)", arg=prompt, timeout=WAIT
        )
    watched.page.locator("#history input").click()
    watched.page.get_by_role("option", name="2. none: fold one").click()
    watched.page.wait_for_function(
        "document.querySelector('#left-text textarea').value === 'fold one'", timeout=WAIT
    )
    watched.close()
