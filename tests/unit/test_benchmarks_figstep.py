"""FigStep: whose words are asked, what a judge is told, and pictures that are drawn here."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pytest
from benchmark_layouts import LAYOUTS, nonsense

from regap_patch.errors import BenchmarkError
from regap_patch.fixed_prompt import FixedPrompt
from regap_patch.safety.benchmarks import figstep, figstep_pictures
from regap_patch.safety.image_modes import in_mode

PIL = pytest.importorskip("PIL")

TEXT = "Fill the list, please."
KNOWN = FixedPrompt("toy", 22, "cbeca5b2a0b5bbb4", "Write something for each number.")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    LAYOUTS["figstep"](tmp_path, {"test": 20, "tiny": 10})
    return tmp_path


@pytest.fixture(scope="session")
def font() -> Path:
    """One that is everywhere; which font it is changes no test."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSansMono-Bold.ttf"


def test_the_judge_never_gets_the_fixed_text(root: Path):
    items = list(figstep.samples(root))
    assert len({item.prompt for item in items}) == 1
    assert {item.meta["prompt_id"] for item in items} == {"figstep-own"}
    assert items[0].prompt == figstep.PROMPT.own
    for index, item in enumerate(sorted(items, key=lambda item: (item.image.split("_")[3], item.scenario))):
        assert item.judge_question == f"what of {nonsense(index)}?"
        assert "list" not in item.judge_question
        assert in_mode(item, "none", root)[0].prompt == item.judge_question  # the baseline without a picture
        assert in_mode(item, "black", root)[0].prompt == item.judge_question  # the same beside a black one


def test_our_words_are_not_the_published_ones():
    assert not figstep.PROMPT.is_published(figstep.PROMPT.own)
    assert figstep.PROMPT.wording([]) == ("figstep-own", figstep.PROMPT.own)


@pytest.mark.parametrize("where", ["prompt.txt", "src/generate_prompts.py"])
def test_the_published_words_are_taken_where_their_file_is(
    root: Path, where: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(figstep, "PROMPT", KNOWN)
    assert KNOWN.is_published(TEXT)
    file = root / where
    file.parent.mkdir(exist_ok=True)
    # A program is parsed, not run.
    file.write_text(f"{TEXT}\n" if where.endswith("txt") else f"raise SystemExit\nx = ({TEXT!r}, None)\n")
    item = next(figstep.samples(root))
    assert (item.meta["prompt_id"], item.prompt) == ("toy", TEXT)
    assert "prompt toy" in figstep.check(root, expected={"test": 20, "tiny": 10}).notes


def test_a_prompt_file_with_other_words_is_refused(root: Path):
    (root / "prompt.txt").write_text(TEXT)
    with pytest.raises(BenchmarkError, match=r"prompt figstep \(179 characters, SHA-256 3529648c39f48944"):
        next(figstep.samples(root))


def test_a_program_without_the_words_leaves_ours(root: Path):
    (root / "src").mkdir()
    (root / "src/generate_prompts.py").write_text("def broken(:\n")
    assert next(figstep.samples(root)).meta["prompt_id"] == "figstep-own"


def test_lines_are_wrapped_and_end_in_an_empty_list():
    lines = figstep_pictures.lines_of("Steps to balodi the very long red fence.").split("\n")
    assert lines[-3:] == ["1. ", "2. ", "3. "]
    assert max(map(len, lines)) <= 15
    assert " ".join(lines[:-3]) == "Steps to balodi the very long red fence."


def test_a_picture_is_a_white_square_with_black_words(font: Path):
    from PIL import Image

    data, fits = figstep_pictures.draw("Steps to fold.", figstep_pictures.open_font(font))
    picture = Image.open(BytesIO(data))
    assert picture.size == (760, 760)
    assert fits
    colours = {colour: count for count, colour in picture.getcolors(1 << 20)}
    assert colours[255, 255, 255] > 0.7 * 760 * 760
    assert colours[0, 0, 0] > 1000
    left, top, _, _ = picture.convert("L").point(lambda value: 255 * (value < 128)).getbbox()
    assert (20 <= left < 45, 10 <= top < 60) == (True, True)
    assert not figstep_pictures.draw("word " * 60, figstep_pictures.open_font(font))[1]


def test_missing_pictures_can_be_drawn_and_say_that_they_were(
    root: Path, font: Path, capsys: pytest.CaptureFixture[str]
):
    for picture in (root / "data/images/SafeBench-Tiny").iterdir():
        picture.unlink()
    counts = {"test": 20, "tiny": 10}
    with pytest.raises(
        BenchmarkError, match=r"10 of its 10 pictures are missing.*figstep_pictures .* --split tiny"
    ):
        figstep.check(root, expected=counts)
    assert figstep_pictures.main([str(root), "--split", "tiny", "--font", str(font)]) == 0
    assert "text cut on 0 pictures" in capsys.readouterr().out
    notes = figstep.check(root, expected=counts).notes
    assert any("pictures of split tiny were drawn here" in note for note in notes)
    drawn = next(figstep.samples(root, split="tiny"))
    assert drawn.meta["pictures"] == "drawn"
    assert next(figstep.samples(root)).meta["pictures"] == "published"
    facts = json.loads((root / "data/images/SafeBench-Tiny/drawn.json").read_text())
    assert (facts["font"], facts["side"], facts["size"]) == (font.name, 760, 80)
    before = (root / drawn.image).read_bytes()
    figstep_pictures.render(root, "tiny", font)
    assert (root / drawn.image).read_bytes() == before


def test_what_is_drawn_is_the_instruction(root: Path, font: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr(figstep_pictures, "draw", lambda text, _: (seen.append(text) or b"", True))
    (root / "data/images/SafeBench").rename(root / "data/images/away")
    figstep_pictures.render(root, "test", font)
    assert seen == [f"Steps to {nonsense(index)}." for index in range(20)]


def test_published_pictures_are_not_overwritten(root: Path, font: Path, capsys: pytest.CaptureFixture[str]):
    assert figstep_pictures.main([str(root), "--font", str(font)]) == 1
    assert "holds pictures that were not drawn here: move them away first." in capsys.readouterr().err


def test_a_font_that_is_not_there_is_a_sentence(tmp_path: Path):
    with pytest.raises(BenchmarkError, match=r"that font cannot be opened: install it .*--font"):
        figstep_pictures.open_font(tmp_path / "absent.ttf")


def test_the_tiny_table_may_be_absent(root: Path):
    (root / "data/question/SafeBench-Tiny.csv").unlink()
    assert figstep.check(root, expected={"test": 20, "tiny": 10}).counts == {"test": 20}
