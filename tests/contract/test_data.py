"""The dataset and the collator on good data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from llava import conversation as conversation_lib
from llava.constants import IGNORE_INDEX
from llava.mm_utils import process_images
from llava.tokenization import load_tokenizer
from llava.train.arguments import DataArguments
from llava.train.data import DataCollatorForSupervisedDataset, LazySupervisedDataset
from llava.train.samples import SampleFile
from llava.train.validate import find_problems

if TYPE_CHECKING:
    from tests.conftest import TinyAssets


@pytest.fixture(scope="module")
def processor(tiny: TinyAssets):
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor.from_pretrained(tiny.clip)


@pytest.fixture
def tokenizer(tiny: TinyAssets, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversation_lib, "default_conversation", conversation_lib.conv_templates["v1"])
    made = load_tokenizer(str(tiny.llama), padding_side="right", model_max_length=512)
    made.pad_token = made.unk_token
    return made


@pytest.fixture
def arguments(tiny: TinyAssets, processor: Any) -> DataArguments:
    made = DataArguments(image_folder=str(tiny.world.images))
    made.image_processor, made.is_multimodal = processor, True
    return made


def entries(path: Any) -> list[dict[str, Any]]:
    return json.loads(Path(path).read_text())


def test_the_worlds_files_are_sound(tiny: TinyAssets, tokenizer: Any, arguments: DataArguments):
    finetune = LazySupervisedDataset(tiny.world.finetune_json, tokenizer, arguments)
    assert find_problems(finetune) == {}
    conversation_lib.default_conversation = conversation_lib.conv_templates[
        "plain"
    ]  # the fixture puts it back
    pretrain = LazySupervisedDataset(tiny.world.pretrain_json, tokenizer, arguments)
    assert find_problems(pretrain) == {}


def test_lengths_are_words_and_tell_the_kind(tiny: TinyAssets, tokenizer: Any, arguments: DataArguments):
    dataset = LazySupervisedDataset(tiny.world.finetune_json, tokenizer, arguments)
    assert {length > 0 for length in dataset.modality_lengths} == {True, False}
    for index, entry in enumerate(entries(tiny.world.finetune_json)):
        words = sum(len(turn["value"].split()) for turn in entry["conversations"])
        assert dataset.modality_lengths[index] == (words if "image" in entry else -words)
        assert dataset.lengths[index] == words + (128 if "image" in entry else 0)


def test_no_length_is_zero(tmp_path: Path, tokenizer: Any, arguments: DataArguments):
    """The grouped sampler could not tell the kind of a sample of length 0."""
    blank = [{"from": "human", "value": " "}, {"from": "gpt", "value": "\n"}]
    path = tmp_path / "data.json"
    path.write_text(
        json.dumps([{"conversations": blank}, {"conversations": blank, "image": "a"}, {"id": 3}, 4])
    )
    dataset = LazySupervisedDataset(path, tokenizer, arguments)
    assert dataset.modality_lengths == [-1, 1, -1, -1]
    assert dataset.lengths == [1, 129, 1, 1]


@pytest.mark.parametrize("aspect", ["pad", "square"])
def test_images_are_those_of_process_images(
    aspect: str, tmp_path: Path, tokenizer: Any, arguments: DataArguments, processor: Any
):
    picture = Image.frombytes("RGB", (90, 60), bytes(range(250)) * 64 + bytes(200))
    picture.convert("RGBA").save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a ring"}]
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"id": 7, "image": "a.png", "conversations": turns}]))
    arguments.image_folder, arguments.image_aspect_ratio = str(tmp_path), aspect
    item = LazySupervisedDataset(path, tokenizer, arguments)[0]
    assert torch.equal(item["image"], process_images([picture], processor, arguments)[0])
    assert item["image"].shape == (3, 56, 56)
    assert item["id"] == "7"


def test_a_text_only_sample_carries_a_black_image(tiny: TinyAssets, tokenizer: Any, arguments: DataArguments):
    dataset = LazySupervisedDataset(tiny.world.finetune_json, tokenizer, arguments)
    index = dataset.modality_lengths.index(min(dataset.modality_lengths))
    assert torch.equal(dataset[index]["image"], torch.zeros(3, 56, 56))
    arguments.is_multimodal = False
    assert "image" not in dataset[index]


def test_the_template_is_the_one_of_construction(tiny: TinyAssets, tokenizer: Any, arguments: DataArguments):
    """A spawned data worker starts with the module's default template; the dataset brings its own."""
    dataset = LazySupervisedDataset(tiny.world.finetune_json, tokenizer, arguments)
    before = dataset[0]["input_ids"]
    conversation_lib.default_conversation = conversation_lib.conv_templates["plain"]
    assert torch.equal(dataset[0]["input_ids"], before)


def item(ids: list[int], **more: Any) -> dict[str, Any]:
    labels = [IGNORE_INDEX, *ids[1:]]
    return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels), "id": str(len(ids)), **more}


def test_the_collator_pads_on_the_right(tokenizer: Any):
    batch = DataCollatorForSupervisedDataset(tokenizer)([item([1, 5, 6, 2]), item([1, 7])])
    assert batch["input_ids"].tolist() == [[1, 5, 6, 2], [1, 7, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 5, 6, 2], [-100, 7, -100, -100]]
    assert batch["attention_mask"].tolist() == [[True] * 4, [True, True, False, False]]
    assert batch["sample_ids"] == ["4", "2"]
    assert set(batch) == {"input_ids", "labels", "attention_mask", "sample_ids"}
    assert torch.equal(batch["attention_mask"], batch["input_ids"] != tokenizer.pad_token_id), "as upstream"


def test_an_unknown_word_is_not_padding(tokenizer: Any):
    unknown = tokenizer.unk_token_id
    assert unknown == tokenizer.pad_token_id
    batch = DataCollatorForSupervisedDataset(tokenizer)([item([1, unknown, 6, unknown]), item([1, 7])])
    assert batch["attention_mask"].sum(1).tolist() == [4, 2]
    assert batch["labels"][0].tolist() == [-100, unknown, 6, unknown]


def test_the_collator_cuts_to_the_longest_length(tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokenizer, "model_max_length", 3)
    batch = DataCollatorForSupervisedDataset(tokenizer)([item([1, 5, 6, 2]), item([1, 7])])
    assert batch["input_ids"].tolist() == [[1, 5, 6], [1, 7, 0]]
    assert batch["attention_mask"].shape == batch["labels"].shape == (2, 3)


def test_images_are_stacked_or_listed(tokenizer: Any):
    collate = DataCollatorForSupervisedDataset(tokenizer)
    square, wide = torch.ones(3, 2, 2), torch.ones(3, 2, 4)
    same = collate([item([1, 5], image=square), item([1, 6], image=square)])["images"]
    assert same.shape == (2, 3, 2, 2)
    other = collate([item([1, 5], image=square), item([1, 6], image=wide)])["images"]
    assert [image.shape for image in other] == [(3, 2, 2), (3, 2, 4)]


def test_a_sample_file_reads_as_the_list_it_holds(tmp_path: Path):
    whole = [{"id": "é語😀", "n": [1, 2.5, None, True]}, [], "a\n\u2028\ud800", 7, {"image": "x"}, {}]
    for text in (json.dumps(whole), json.dumps(whole, indent=2), "\ufeff \n" + json.dumps(whole) + "\n "):
        path = tmp_path / "data.json"
        path.write_bytes(text.encode())
        file = SampleFile(path)
        assert len(file) == 6
        assert list(file) == whole == file[:]
        assert file[-1] == whole[-1]
        assert file[1:4] == whole[1:4]
        assert file.has_image.tolist() == [False, False, False, False, True, False]
        with pytest.raises(IndexError):
            file[6]


def test_a_sample_file_takes_little_more_memory_than_its_text(tmp_path: Path):
    """As Python objects the same entries take several times the file."""
    import tracemalloc

    turns = [{"from": "human", "value": "<image>\nwhat"}, {"from": "gpt", "value": "a ring"}] * 3
    path = tmp_path / "data.json"
    path.write_text(
        json.dumps([{"id": str(n), "image": f"{n}.jpg", "conversations": turns} for n in range(3000)])
    )
    tracemalloc.start()
    file = SampleFile(path)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    whole = json.loads(path.read_text())
    objects = tracemalloc.get_traced_memory()[0] - kept
    tracemalloc.stop()
    assert len(whole) == len(file)
    assert kept < 1.3 * path.stat().st_size
    assert objects > 3 * kept
