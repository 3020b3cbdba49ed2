"""Where pairs come from, which are drawn, and what is said of sources that have none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regap_patch.errors import MeasureError
from regap_patch.measure import checkpoints
from regap_patch.measure.checkpoints import needs_base
from regap_patch.measure.pairs import choose_pairs
from regap_patch.measure.runs import output_files
from regap_patch.measure.sources import image_files, texts


def picture(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def captions(path: Path, count: int, **changed) -> Path:
    samples = [
        {
            "id": f"s{number}",
            "image": f"{number:03}.png",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is it?"},
                {"from": "gpt", "value": f"Thing {number}."},
                {"from": "human", "value": "Sure?"},
                {"from": "gpt", "value": "Yes."},
            ],
            **changed,
        }
        for number in range(count)
    ]
    path.write_text(json.dumps(samples))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(12):
        picture(tmp_path / f"images/sub{number % 2}/{number:03}.png", bytes([number]))
    (tmp_path / "images/notes.md").write_text("no image")
    return tmp_path / "images"


def names(chosen) -> list[tuple[str, str]]:
    return [(pair.images[0].name, pair.text) for pair in chosen.pairs]


def test_images_of_a_folder_and_of_a_json(images: Path, tmp_path: Path):
    assert [path.name for path in image_files(images)] == [
        f"{n:03}.png" for n in (*range(0, 12, 2), *range(1, 12, 2))
    ]
    found = image_files(captions(tmp_path / "c.json", 3), tmp_path / "elsewhere")
    assert found == [tmp_path / f"elsewhere/{number:03}.png" for number in range(3)]
    assert image_files(tmp_path / "c.json") == [tmp_path / f"{number:03}.png" for number in range(3)]


def test_texts_of_every_kind_of_source(tmp_path: Path):
    stories = tmp_path / "stories"
    stories.mkdir()
    (stories / "b.story").write_text("An article.\n\nIts end.\n\n@highlight\n\nThe summary.\n")
    (stories / "a.txt").write_text("Line one.\nLine two.\n")
    assert [(text.name, text.text) for text in texts(stories)] == [
        ("a.txt", "Line one.\nLine two."),
        ("b.story", "An article.\n\nIts end."),
    ]
    assert [text.text for text in texts(stories / "a.txt")] == ["Line one.", "Line two."]
    assert [text.text for text in texts(stories / "b.story")] == ["An article.\n\nIts end."]
    found = texts(captions(tmp_path / "c.json", 2))
    assert [text.text for text in found] == ["Thing 0. Yes.", "Thing 1. Yes."]
    assert found[0].images == ("000.png",)


def test_no_text_asks_for_a_picture(tmp_path: Path):
    (tmp_path / "one.txt").write_text("<image>\nan <image> element\n")
    assert [text.text for text in texts(tmp_path / "one.txt")] == ["an  element"]
    assert [text.text for text in texts(tmp_path)] == ["an  element"]


def test_a_seed_means_the_same_whatever_else_lies_there(images: Path, tmp_path: Path):
    data = captions(tmp_path / "c.json", 13)
    chosen = choose_pairs(images, data, count=6, seed=3)
    assert names(chosen) == names(choose_pairs(images, data, count=6, seed=3))
    assert names(choose_pairs(images, data, count=4, seed=3)) == names(chosen)[:4]
    assert names(choose_pairs(images, data, count=6, seed=4)) != names(chosen)
    assert len({image for image, _ in names(chosen)}) == 6
    order = [image for image, _ in names(choose_pairs(images, data, count=12, seed=3))]
    picture(images / "zzz/new.png")
    longer = [image for image, _ in names(choose_pairs(images, data, count=13, seed=3))]
    assert [image for image in longer if image != "new.png"] == order
    moved = images.rename(tmp_path / "moved")
    assert [image for image, _ in names(choose_pairs(moved, data, count=13, seed=3))] == longer


def test_captions_bring_their_own_images(images: Path, tmp_path: Path):
    folder = tmp_path / "flat"
    for number in range(5):
        picture(folder / f"{number:03}.png", bytes([number]))
    chosen = choose_pairs(folder, captions(tmp_path / "c.json", 5), count=4, pairing="captions")
    assert all(text == f"Thing {int(image[:3])}. Yes." for image, text in names(chosen))
    mixed = captions(tmp_path / "several.json", 3, image=["000.png", "001.png"])
    both = choose_pairs(folder, mixed, count=2, pairing="captions").pairs[0].images
    assert [path.name for path in both] == ["000.png", "001.png"]


def test_provenance_follows_the_content(images: Path, tmp_path: Path):
    data = captions(tmp_path / "c.json", 6)
    first = choose_pairs(images, data, count=4).provenance
    assert first == choose_pairs(images, data, count=4).provenance
    assert (first["pairs"], first["seed"], first["pairing"]) == (4, 0, "unrelated")
    for path in image_files(images):
        path.write_bytes(b"other")
    second = choose_pairs(images, data, count=4).provenance
    assert first["images"]["sha256"] != second["images"]["sha256"]
    assert first["texts"]["sha256"] == second["texts"]["sha256"]


def test_what_cannot_be_drawn_is_one_sentence(images: Path, tmp_path: Path):
    data = captions(tmp_path / "c.json", 5)
    empty = captions(tmp_path / "empty.json", 5, conversations=[{"from": "gpt", "value": "<image>\n "}])
    blank = captions(tmp_path / "blank.json", 5, image=None)
    story = tmp_path / "stories/only.story"
    story.parent.mkdir()
    story.write_text("\n@highlight\n\nA summary.\n")
    torn, listed, turnless = (tmp_path / name for name in ("torn.json", "listed.json", "turnless.json"))
    torn.write_text('[{"id": ')
    listed.write_text('{"id": 1}')
    turnless.write_text('[{"id": 1}]')
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9\n")
    (tmp_path / "nothing").mkdir()
    cases = [
        ((images, data, 6), "6 pairs were asked for, but .*c.json has 5 texts: ask for fewer with --pairs"),
        ((images, data, 13), "13 pairs were asked for, but .*images has 12 images"),
        ((images, data, 1), "1 pairs were asked for, but spread needs at least 2"),
        ((images, empty, 2), r"Text \d \(id s\d\) of .*empty.json was drawn, but it is empty"),
        (
            (images, story.parent, 2),
            "only.story was asked for, but the file has none before its first @highlight",
        ),
        ((images, torn, 2), "torn.json cannot be read as JSON"),
        ((images, listed, 2), "holds no list of samples but dict"),
        ((images, turnless, 2), "Sample 0 of .*turnless.json has no `conversations`"),
        ((images, latin, 2), "latin.txt was to be read as text, but that failed .UnicodeDecodeError"),
        ((images, tmp_path / "nowhere.txt", 2), "nowhere.txt was to be read as text"),
        ((images, tmp_path / "nothing", 2), "no file below it ends in .story or .txt"),
        ((tmp_path / "nothing", data, 2), "no file below it ends in .bmp, .gif"),
        ((blank, data, 2), "none of its samples has an `image`"),
        ((data, data, 2), r"The image .*\d.png was drawn, but it cannot be read .No such file"),
    ]
    for (pictures, words, count), sentence in cases:
        with pytest.raises(MeasureError, match=sentence) as refused:
            choose_pairs(pictures, words, count=count)
        assert str(refused.value).endswith(".")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["config.json", "mm_projector.bin"], True),
        (
            ["config.json", "adapter_config.json", "adapter_model.safetensors", "non_lora_trainables.bin"],
            True,
        ),
        (["config.json", "adapter_model.safetensors", "adapter_config.json", "training_args.bin"], True),
        (["config.json", "model.safetensors"], False),
        (["config.json", "model-00001-of-00002.safetensors", "mm_projector.bin"], False),
        (["config.json", "pytorch_model.bin"], False),
    ],
)
def test_only_parts_of_a_model_need_a_base(files: list[str], expected: bool, tmp_path: Path):
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    assert needs_base(str(tmp_path)) is expected


def test_a_fingerprint_follows_config_tokenizer_and_weights(tmp_path: Path, monkeypatch):
    for name, size in (("WHOLE", 12), ("PAGE", 2), ("STRIDE", 4)):
        monkeypatch.setattr(checkpoints, name, size)
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    seen = set()
    large = (
        b"head....here....tail",
        b"Head....here....tail",
        b"head....There...tail",
        b"head....here....taiL",
    )
    for content in (*large, b"head....here.....tail", b"head....tail", b"head..X.tail"):
        weights.write_bytes(content)
        seen.add(checkpoints.fingerprint(str(tmp_path)))
    assert len(seen) == 7
    for beside_it in ("trainer_state.json", "optimizer.bin"):
        (tmp_path / beside_it).write_text("{}")
    assert checkpoints.fingerprint(str(tmp_path)) in seen
    (tmp_path / "tokenizer.model").write_text("other words")
    assert checkpoints.fingerprint(str(tmp_path)) not in seen


def test_a_projector_is_made_of_its_base_and_its_tower_too(tmp_path: Path):
    stage_one, base, tower = (tmp_path / name for name in ("stage-one", "base", "tower"))
    for folder in (stage_one, base, tower):
        folder.mkdir()
    (stage_one / "config.json").write_text(json.dumps({"mm_vision_tower": str(tower)}))
    (stage_one / "mm_projector.bin").write_bytes(b"x")
    assert checkpoints.made_of(str(stage_one), str(base)) == [str(stage_one), str(tower), str(base)]
    (stage_one / "model.safetensors").write_bytes(b"x")
    assert checkpoints.made_of(str(stage_one), str(base)) == [str(stage_one), str(tower)]
    (stage_one / "model.safetensors").unlink()
    (stage_one / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert checkpoints.made_of(str(stage_one)) == [str(stage_one), str(tower), str(base)]


def test_no_two_checkpoints_share_a_file(tmp_path: Path):
    folders = [tmp_path / name for name in ("off/llava/checkpoint-1", "on/llava/checkpoint-1", "on/final")]
    for folder in folders:
        folder.mkdir(parents=True)
    files = output_files([*map(str, folders), "maker/model"], Path("out"))
    names = [file.name for file in files.values()]
    assert names == ["off-llava-checkpoint-1.json", "on-llava-checkpoint-1.json", "final.json", "model.json"]
    same = output_files([str(folders[2]), f"{folders[2]}/"], Path("out"))
    assert {file.name for file in same.values()} == {"final.json"}


def test_a_json_may_name_images_from_the_root_of_the_disk(images: Path, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = [str(path.resolve()) for path in image_files(images)]
    samples = [{"image": path, "conversations": [{"from": "gpt", "value": "words"}]} for path in found]
    data = elsewhere / "data.json"
    data.write_text(json.dumps(samples))
    chosen = choose_pairs(data, data, count=2)
    assert {str(path) for pair in chosen.pairs for path in pair.images} <= set(found)
