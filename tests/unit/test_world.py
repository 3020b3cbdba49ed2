"""The picture world: the same everywhere, true to its scenes, and in LLaVA's format."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from regap_patch.study import language
from regap_patch.study.scenes import BACKGROUNDS, COLOURS, PLACES, SHAPES, Scene, Thing, draw_scene, paint
from regap_patch.study.world import World, make_world

COUNTS = {"num_pretrain": 30, "num_finetune": 60, "num_questions": 28}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), **COUNTS)


def digests(world: World) -> dict[str, str]:
    """Of the pixels, not of the PNG files: those depend on the machine's zlib."""
    pixels = hashlib.sha256()
    for path in sorted(world.images.iterdir()):
        pixels.update(path.name.encode() + Image.open(path).tobytes())
    texts = (world.pretrain_json, world.finetune_json, world.questions, world.corpus)
    return {"pixels": pixels.hexdigest()} | {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in texts
    }


def test_same_seed_same_world_other_seed_other_world(world: World, tmp_path: Path):
    again, other = make_world(tmp_path / "a", **COUNTS), make_world(tmp_path / "b", **COUNTS, seed=1)
    assert digests(again) == digests(world)
    assert all(digests(other)[name] != digest for name, digest in digests(world).items())


def test_pixels_are_those_of_every_machine():
    scene = draw_scene(Random("a scene"))
    assert hashlib.sha256(paint(scene, 56).tobytes()).hexdigest()[:16] == "d163c1bfa62a1e33"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("place", PLACES)
def test_a_thing_shows_in_its_quarter_in_its_colour_and_nowhere_else(shape: str, place: str):
    pixels = paint(Scene("grey", (Thing(shape, "red", "large", place, (1.0, -1.0)),)), 56)
    row, column = divmod(PLACES.index(place), 2)
    quarter = np.zeros((56, 56), dtype=bool)
    quarter[28 * row : 28 * row + 28, 28 * column : 28 * column + 28] = True
    red = (pixels == COLOURS["red"]).all(-1)
    assert 100 < red.sum() < 700
    assert not red[~quarter].any()
    assert (pixels[~red] == BACKGROUNDS["grey"]).all()


def test_shapes_differ_on_every_patch_grid():
    things = [
        paint(Scene("black", (Thing(shape, "red", "small", "top left", (0.0, 0.0)),)), 56) for shape in SHAPES
    ]
    for index, one in enumerate(things):
        assert all((one != other).any(-1).sum() >= 20 for other in things[:index])


def test_llava_format(world: World):
    pretrain, finetune = (json.loads(path.read_text()) for path in (world.pretrain_json, world.finetune_json))
    assert (len(pretrain), len(finetune)) == (30, 60)
    for sample in pretrain + finetune:
        turns = sample["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert all(turn["value"].strip() for turn in turns)
        placeholders = sum(turn["value"].count("<image>") for turn in turns)
        assert placeholders == ("image" in sample)
        if "image" in sample:
            assert Image.open(world.images / sample["image"]).size == (56, 56)
    assert all(sample["conversations"][0]["value"] == "<image>" for sample in pretrain)
    assert len({sample["id"] for sample in pretrain + finetune}) == 90
    assert {len(sample["conversations"]) for sample in finetune} >= {2, 4, 6}
    assert 3 <= sum("image" not in sample for sample in finetune) <= 20
    lengths = {len(sample["conversations"][1]["value"].split()) for sample in pretrain}
    assert max(lengths) > 3 * min(lengths)


def read_back(description: str, question: language.Question) -> str:
    """Answer from the words of the description alone, with a regular expression."""
    things = re.findall(r"an? (\w+) (\w+) (\w+) in the (\w+ \w+)", description)
    words = set(question.text.rstrip("?").split())
    if question.kind == "count":
        return ("one", "two", "three", "four")[len(things) - 1]
    if question.kind == "background":
        return re.search(r"on a (\w+) background", description).group(1)
    if question.kind == "exists":
        return "yes" if any({colour, shape} <= words for _, colour, shape, _ in things) else "no"
    meant = next(thing for thing in things if thing[2] in words or thing[3] in question.text)
    return dict(zip(("size", "colour", "shape", "place"), meant, strict=True))[question.kind]


def test_answers_follow_from_what_is_seen():
    random = Random(0)
    for index in range(300):
        scene = draw_scene(random)
        question = language.ask(scene, language.KINDS[index % len(language.KINDS)], random)
        assert question.answer == read_back(language.describe(scene), question), (scene, question)


def test_questions_are_held_out_and_cover_each_kind_alike(world: World):
    rows = [json.loads(line) for line in world.questions.read_text().splitlines()]
    assert set(Counter(row["kind"] for row in rows).values()) == {4}
    assert [row["question_id"] for row in rows] == list(range(28))
    asked = {Image.open(world.images / row["image"]).tobytes() for row in rows}
    seen = {Image.open(path).tobytes() for path in world.images.glob("[pf]*.png")}
    assert not asked & seen


def test_an_unfinished_world_does_not_open(world: World, tmp_path: Path):
    assert World.open(world.root) == world
    with pytest.raises(FileNotFoundError, match="make it with"):
        World.open(tmp_path)


def test_sizes_that_mean_nothing_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="counts must be >= 0"):
        make_world(tmp_path / "world", num_pretrain=-1, num_finetune=0, num_questions=0)
    assert not (tmp_path / "world").exists()
