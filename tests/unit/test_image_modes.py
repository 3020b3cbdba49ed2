"""What stands in the picture's place: bytes that are the same everywhere, and the record that says so."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from io import BytesIO

import pytest
from PIL import Image

from regap_patch.errors import BenchmarkError
from regap_patch.records import IMAGE_MODES
from regap_patch.safety.benchmarks import custom
from regap_patch.safety.image_modes import WORDS, Picture, in_mode, is_possible, pictures_in
from regap_patch.safety.png import png
from regap_patch.safety.tasks import Asked, Task
from tests.unit.evaluation_items import make_items, noisy_picture

PIXEL = {"blank": (255, 255, 255), "black": (0, 0, 0), "grey": (122, 116, 104)}
# Of the bytes, so that no other machine, zlib or Pillow is told another story.
FROZEN = {
    "blank": "5c4cb16dec3632625c27dc36e7f0b226918bd8a15ce246e7c7346919e6f29adc",
    "noise": "ef29ea9f3f6bf77543c27b825b2dc31aeb548153f10790f624051f98fa7661f3",
}


@pytest.fixture
def root(tmp_path):
    return make_items(tmp_path / "data", 4)


@pytest.fixture
def items(root):
    return list(custom.samples(root))


def pool(root, items):
    return [Picture(item.image, item.cluster, root) for item in items]


def test_made_pictures_have_the_items_size_and_their_colour(root, items):
    for mode, colour in PIXEL.items():
        sample, picture = in_mode(items[0], mode, root)
        shown = Image.open(BytesIO(picture))
        assert (shown.size, shown.mode, shown.getcolors()) == ((8, 6), "RGB", [(48, colour)])
        assert sample.image is None
        assert sample.image_sha256 == hashlib.sha256(picture).hexdigest()
    bare = dataclasses.replace(items[0], image=None)
    assert Image.open(BytesIO(in_mode(bare, "black", root)[1])).size == (336, 336)


def test_stored_png_is_what_pillow_reads():
    pixels = hashlib.shake_256(b"x").digest(3 * 200 * 150)  # more than one block of deflate
    assert Image.open(BytesIO(png(200, 150, pixels))).tobytes() == pixels
    with pytest.raises(ValueError, match="are no 3 x 3 RGB pixels"):
        png(3, 3, b"\0" * 26)


def test_bytes_are_frozen(root, items):
    for mode, sha256 in FROZEN.items():
        assert in_mode(items[0], mode, root)[0].image_sha256 == sha256


def test_noise_is_each_items_own_and_follows_the_seed(root, items):
    def noise(item, seed):
        return in_mode(item, "noise", root, seed=seed)[1]

    assert noise(items[0], 0) == noise(items[0], 0)
    assert len({noise(item, seed) for item in items for seed in (0, 1)}) == 8
    values = Image.open(BytesIO(noise(dataclasses.replace(items[0], image=None), 0))).tobytes()
    assert sum(values) / len(values) == pytest.approx(127.5, abs=1)


def test_real_is_the_file_itself(root, items):
    sample, picture = in_mode(items[1], "real", root)
    assert picture == (root / items[1].image).read_bytes()
    assert sample.image == items[1].image
    (root / items[1].image).write_bytes(noisy_picture(8, 6, 1))
    assert in_mode(items[1], "real", root)[0].image_sha256 != sample.image_sha256


def test_irrelevant_is_another_items_picture(root, items):
    chosen = {
        in_mode(items[0], "irrelevant", root, seed=seed, pool=pool(root, items))[0].image
        for seed in range(40)
    }
    assert chosen == {item.image for item in items[1:]}
    same = [dataclasses.replace(item, cluster="one") for item in items]
    with pytest.raises(BenchmarkError, match="none of another item: name a folder of pictures"):
        in_mode(same[0], "irrelevant", root, pool=pool(root, same))
    own = root.parent / "own"
    own.mkdir()
    with pytest.raises(BenchmarkError, match=r"holds no \.bmp, \.jpeg"):
        pictures_in(own)
    (own / "a.png").write_bytes(noisy_picture(5, 5, 2))
    assert in_mode(items[0], "irrelevant", root, pool=pictures_in(own))[1] == (own / "a.png").read_bytes()


def test_modes_without_a_picture(root, items):
    none, picture = in_mode(items[0], "none", root)
    assert (none.image, none.image_sha256, picture, none.prompt) == (None, None, None, items[0].prompt)
    words, picture = in_mode(items[0], "words", root)
    assert picture is None
    assert words.meta["words"] in WORDS
    assert len({in_mode(items[0], "words", root, seed=seed)[0].meta["words"] for seed in range(99)}) == len(
        WORDS
    )
    assert all(8 <= len(text.split()) <= 13 for text in WORDS), "as long as a caption"
    given = dataclasses.replace(items[0], meta={"text_prompt": "Fold a blorp?", "words": "red circle"})
    assert in_mode(given, "words", root)[0].meta["words"] == "red circle"
    assert in_mode(given, "none", root)[0].prompt == "Fold a blorp?"
    assert "words" not in in_mode(given, "none", root)[0].meta
    assert in_mode(given, "real", root)[0].prompt == items[0].prompt


def test_a_prompt_that_points_at_its_picture_is_asked_beside_that_picture_alone(root, items):
    """Else a blank picture would look safer than none, for nothing harmful would be asked beside it."""
    given = dataclasses.replace(items[0], meta={"text_prompt": "Fold a blorp?"})
    asked = {mode: in_mode(given, mode, root, pool=pool(root, items))[0].prompt for mode in IMAGE_MODES}
    assert asked == dict.fromkeys(IMAGE_MODES, "Fold a blorp?") | {"real": items[0].prompt}


def test_a_task_has_every_item_in_every_mode(root):
    asked = Asked(Task(custom, root, IMAGE_MODES), seed=0)
    assert len(asked.samples) == 4 * len(IMAGE_MODES)
    assert len({(sample.uid, sample.image_mode) for sample in asked.samples}) == len(asked.samples)
    bare = make_items(root.parent / "bare", 3, pictures=False)
    assert [sample.image_mode for sample in Asked(Task(custom, bare), seed=0).samples] == ["none"] * 3
    with pytest.raises(BenchmarkError, match=r"image mode real, but none of its 3 items has a picture"):
        Asked(Task(custom, bare, ("none", "real")), seed=0)
    assert not is_possible(next(custom.samples(bare)), "real")


def test_a_picture_that_does_not_open_is_named(root, items):
    path = root / items[2].image
    whole = noisy_picture(40, 40, 0)
    half = whole[: len(whole) // 2]
    for broken, modes in ((b"no picture", ("real", "blank")), (b"", ("real", "noise")), (half, ("real",))):
        path.write_bytes(broken)
        for mode in modes:
            with pytest.raises(BenchmarkError, match=r"2.png of item custom/test/002 does not open"):
                in_mode(items[2], mode, root)
    path.unlink()
    with pytest.raises(BenchmarkError, match=r"2.png of item custom/test/002 does not open \(FileNotFound"):
        in_mode(items[2], "real", root)


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"prompt": None}, "has no prompt"),
        ({"prompt": ""}, "has no prompt"),
        ({"prompt": ["Fold?"]}, "has list as prompt, where str is expected"),
        ({"image": 5}, "has int as image, where str"),
        ({"meta": "x"}, "has str as meta, where dict"),
        ({"prompt": "half \ud83d"}, "surrogates not allowed"),
    ],
)
def test_an_own_item_of_another_shape_is_one_sentence(tmp_path, row, wrong):
    (tmp_path / "items.jsonl").write_text(json.dumps({"id": 1, "prompt": "Fold?"} | row) + "\n")
    with pytest.raises(BenchmarkError, match=rf"Line 1 of .*{wrong}"):
        list(custom.samples(tmp_path))
    (tmp_path / "items.jsonl").write_bytes('{"id": 1, "prompt": "caf\xe9"}'.encode("latin-1"))
    with pytest.raises(BenchmarkError, match=r"cannot be opened as UTF-8 \(UnicodeDecodeError\)"):
        custom.check(tmp_path)


def test_null_in_an_own_item_is_nothing(tmp_path):
    """Tables that were turned into JSON lines are full of it."""
    bare = {"id": 1, "prompt": "Fold?"}
    nulls = dict.fromkeys(custom.FIELDS) | bare | {"image": ""}
    (tmp_path / "items.jsonl").write_text("\ufeff" + json.dumps(nulls), encoding="utf-8")
    (found,) = custom.samples(tmp_path)
    (tmp_path / "items.jsonl").write_text(json.dumps(bare))
    assert [found] == list(custom.samples(tmp_path))
    assert (found.judge_question, found.scenario, found.cluster) == ("Fold?", "", "1")
