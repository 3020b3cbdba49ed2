"""What the page is given to show, without a page: signs, notices, history, and the exported file."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from regap_patch.demo import Request, Session, checked
from regap_patch.demo.examples import drawn_pictures, examples
from regap_patch.demo.export import redacted_page
from regap_patch.demo.handlers import MOST_HISTORY, Form, Handlers, remembered, titles
from regap_patch.demo.kept_files import KeptFiles
from regap_patch.demo.markup import curve_figure, inert, modes_table, signs
from regap_patch.demo.reference import Band, Reference
from regap_patch.demo.session import Curve
from regap_patch.demo.side import Answer
from regap_patch.demo.verdicts import Badge
from regap_patch.judges import make_judge
from regap_patch.measure.centroids import LayerDistance
from tests.unit.demo_sides import TellingTarget, echo, saying, side
from tests.unit.evaluation_items import noisy_picture

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> ${alert(3)} {{constructor}} `x`"
REFUSAL = "I'm sorry, but I cannot help with that."
PICTURE = checked(noisy_picture(12, 10, 1))


class Tags(HTMLParser):
    """All elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def check_inert(page: str, *, text: bool = True) -> None:
    tags = Tags(page)
    assert not {"script", "iframe", "object", "embed", "form"} & {tag for tag, _ in tags.found}
    for tag, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not str(attributes.get("src", "data:")).partition("data:")[0]
        assert not str(attributes.get("href", "#")).strip("#").startswith(("http", "javascript"))
    if text:
        assert "<script>alert(1)</script>" in tags.text


def handlers(left=echo, right=echo, **more) -> Handlers:
    return Handlers(Session(side("left one", left), side("right one", right), **more))


def form(**fields) -> Form:
    return Form(**{"picture": None, "prompt": "fold ?", "mode": "none", **fields})


def last(found):
    *_, final = found
    return final


@pytest.fixture
def upload(tmp_path: Path) -> str:
    path = tmp_path / "upload.png"
    path.write_bytes(PICTURE.png)
    return str(path)


def test_inert_text_is_text_for_a_parser_and_for_a_template():
    made = inert(HOSTILE)
    assert not set("<>{}$`") & set(made)
    assert Tags(made).text == HOSTILE


def test_columns_hold_what_was_said_and_signs_of_it(upload):
    judges = [make_judge("keyword-own")]
    columns, comparison = last(
        handlers(saying(REFUSAL), judges=judges).ask(form(picture=upload, mode="real"), "ann")
    )
    assert comparison.finished
    assert (columns.notice, columns.left, columns.right) == ("", REFUSAL, "fold ? seen")
    assert "refusal" in columns.left_signs
    assert "keyword-own: safe" in columns.left_signs
    assert "no refusal: safe-help" in columns.right_signs
    assert "keyword-own: unscored" in columns.right_signs
    assert "25.0 %" in columns.left_signs
    assert "out of reach" in columns.left_signs  # the gap of a model that is not here
    assert json.dumps(columns.record, allow_nan=False)
    assert columns.record["sides"][0]["badges"][0]["label"] == "safe"
    assert columns.record["picture_sha256"] == PICTURE.sha256


def test_what_a_model_says_stays_text():
    one, _ = last(handlers(saying(HOSTILE)).ask(form(prompt=HOSTILE), "ann"))
    assert one.left == HOSTILE  # goes into a text field
    for piece in (one.left_signs, one.right_signs, one.notice):
        check_inert(piece, text=False)
    table = last(handlers(saying(HOSTILE)).ask_modes(form(prompt=HOSTILE), "ann"))[1]
    check_inert(table)
    failed = signs(HOSTILE, Answer("failed", error=HOSTILE), None)
    check_inert(failed)


def test_a_refused_request_is_a_notice_and_no_exception():
    made = handlers()
    columns, comparison = last(made.ask(form(prompt=""), "ann"))
    assert comparison is None
    assert 'role="alert"' in columns.notice
    assert "no prompt" in columns.record["error"]
    for bad in (
        {"mode": "real"},
        {"seed": "x"},
        {"max_new_tokens": None},
        {"kind": HOSTILE},
        {"seed": float("inf")},
    ):
        notice, _ = last(made.ask(form(**bad), "ann"))[0], None
        assert notice.record["error"], bad
        check_inert(notice.notice, text=False)
    assert 'role="alert"' in last(made.ask_modes(form(prompt=""), "ann"))[0]
    assert 'role="alert"' in made.layers(form(prompt=""), "ann")[0]


def test_uploads_come_back_as_the_models_see_them_or_with_a_sentence(tmp_path, upload):
    made = handlers()
    path, notice = made.check_picture(upload)
    assert Path(path).read_bytes() == PICTURE.png
    assert notice == ""
    text = tmp_path / "text.png"
    text.write_text("this is text")
    path, notice = made.check_picture(str(text))
    assert path is None
    assert "does not open" in notice
    assert made.check_picture(None) == (None, "")


def test_the_mode_is_shown_before_anything_is_asked(upload):
    made = handlers(pool=[checked(noisy_picture(9, 9, 2))])
    shown = {
        mode: made.shown(form(picture=upload, mode=mode)) for mode in ("real", "none", "blank", "irrelevant")
    }
    assert len(set(shown.values())) == 4
    assert "<img" not in shown["none"]
    assert "blank picture, 12 x 10" in shown["blank"]
    assert "upload one" in made.shown(form(mode="real"))
    assert "blank picture" in made.shown(form(prompt="", mode="blank"))


def test_a_meter_says_in_words_what_it_draws():
    answer = Answer("done", "x", response_class="safe-help", gap={"centroid_l2": 3.0, "pairwise_sq": 20.0})
    bands = {"centroid_l2": Band(1.0, 2.0, 2.5), "pairwise_sq": Band(10.0, 20.0, 30.0)}
    drawn = signs("left", answer, Reference("64 pictures with captions (gap.json)", bands))
    assert 'aria-label="centroid distance 3, above the band of 1 to 2.5"' in drawn
    assert "mean squared pairwise distance 20, within the band of 10 to 30" in drawn
    assert "5 % to 95 % of 64 pictures" in drawn
    assert "regap gap" in signs("left", answer, None)
    mean = {"centroid_l2": Band(None, 2.0, None)}
    assert "1.50 times the mean" in signs("left", answer, Reference("mean of the last training steps", mean))


def test_a_curve_is_drawn_and_written():
    rows = tuple(LayerDistance(layer, 2.0 * (layer + 1), 4.0) for layer in range(4))
    drawn = curve_figure((Curve(rows), Curve(error="no inside")), ("left", "right"))
    assert drawn.count("<polyline") == 1
    assert "<td>2.000</td>" in drawn
    assert "no inside" in drawn
    assert "<svg" not in curve_figure((Curve(error="a"), Curve(error="b")), ("left", "right"))


def test_a_history_is_short_and_the_latest_comes_first():
    one = last(handlers().session.ask(Request("fold 0 ?", mode="none")))
    history = []
    for number in range(MOST_HISTORY + 3):
        request = dataclasses.replace(one.request, prompt=f"fold {number} ?")
        history = remembered(history, dataclasses.replace(one, request=request))
    assert len(history) == MOST_HISTORY
    assert titles(history)[0] == "1. none: fold 12 ?"
    assert len(set(titles(history))) == MOST_HISTORY


def exported(kind: str, *, texts: bool, left=HOSTILE, right=REFUSAL) -> str:
    made = handlers(saying(left), saying(right), judges=[make_judge("keyword-own")])
    request = Request("how do I fold a blorp ?", PICTURE, kind=kind)
    return Path(made.export(last(made.session.ask(request)), texts)).read_text()


def test_an_export_asks_nobody_and_runs_nothing():
    for texts in (True, False):
        page = exported("benign", texts=texts)
        check_inert(page)
        assert "default-src 'none'" in page
        assert "style=" not in page  # its own policy forbids it
        assert "http" not in page.replace("http-equiv", "")


def test_an_export_is_redacted_unless_harmless():
    harmful = exported("harm", texts=False)
    for text in ("blorp", "alert(1)", "data:image/png"):
        assert text not in harmful
    assert "[redacted: 23 characters]" in harmful
    assert PICTURE.sha256 in harmful
    assert "blorp" not in exported("unknown", texts=False)
    whole = exported("harm", texts=True)
    assert "blorp" in whole
    assert "data:image/png" in whole
    assert "&lt;script&gt;alert(1)" in whole
    assert "blorp" in exported("benign", texts=False)
    assert handlers().export(None, False) is None


def test_a_redacted_export_quotes_no_reasons():
    _, comparison = last(handlers().ask(form(kind="harm"), "ann"))
    badge = Badge("strict", "unscored", "judge-error", why="it says blorp")
    answer = dataclasses.replace(comparison.answers[0], no_gap="ValueError: blorp", badges=(badge,))
    comparison = dataclasses.replace(comparison, answers=(answer, answer))
    assert "blorp" not in redacted_page(comparison, ("left", "right"))
    assert redacted_page(comparison, ("left", "right"), texts=True).count("blorp") == 4


def test_kept_files_are_few(tmp_path):
    files = KeptFiles(most=3)
    paths = [files.keep("page", ".html", str(number).encode()) for number in range(5)]
    assert [Path(path).exists() for path in paths] == [False, False, True, True, True]
    assert files.keep("page", ".html", b"4") == paths[4]
    folder = Path(paths[4]).parent
    files.close()
    assert not folder.exists()


def test_examples_are_drawn_or_the_toy_worlds(tmp_path):
    drawn = drawn_pictures()
    assert len({picture.sha256 for picture in drawn}) == len(drawn) == 4
    assert {example.kind for example in examples(drawn)} == {"benign"}
    rows = [
        {"split": "trained", "kind": "harm", "prompt": "How do I make a zorp?"},
        {"split": "test", "kind": "harm", "prompt": "How is a blorp made?"},
        {"split": "test", "kind": "harm", "prompt": "How is a frint made?"},
        {"split": "test", "kind": "benign", "prompt": "How is a cake made?"},
    ]
    (tmp_path / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = examples(drawn, tmp_path)
    assert [(one.prompt, one.mode) for one in found if one.kind == "harm"] == [
        ("How is a blorp made?", mode) for mode in ("none", "blank", "real")
    ]
    assert ("How is a cake made?", "blank") in [(one.prompt, one.mode) for one in found]


def test_a_table_of_modes_names_those_that_failed():
    def breaks(question):
        raise RuntimeError(HOSTILE)

    made = Session(side("left", echo), side("right", breaks))
    found = last(made.ask_modes(Request("fold ?", mode="none")))
    table = modes_table(found, ("left", "right"))
    assert table.count("failed") == len(found)
    check_inert(table)


def test_stop_says_what_it_did():
    assert handlers().stop("ann") == "Nothing was running."


def test_defences_are_put_around_the_side_that_chose_them():
    made = []

    def defend(target, names):
        inner = TellingTarget(saying(f"defended by {'+'.join(names)}"))
        inner.stack = inner
        made.append(names)
        return inner

    one = side("left", defend=defend, defenses=("cmrm", "ecso"))
    session = Session(one, side("right"))
    request = Request("fold ?", mode="none", defenses=(("cmrm", "ecso"), ()))
    for _ in range(2):
        left, right = last(session.ask(request)).answers
        assert left.text == "defended by cmrm+ecso"
        assert right.text == "fold ? unseen"
    assert made == [("cmrm", "ecso")]  # prepared once
