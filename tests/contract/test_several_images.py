"""Samples with several images, and images in tiles, on their way to a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from llava import conversation as conversation_lib
from llava.constants import IMAGE_TOKEN_INDEX
from llava.mm_utils import process_images, tokenizer_image_token
from llava.tokenization import load_tokenizer
from llava.train.arguments import DataArguments
from llava.train.data import DataCollatorForSupervisedDataset, LazySupervisedDataset
from llava.train.preprocess import SampleError
from llava.train.validate import find_problems

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

PINPOINTS = "[[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]"
SIZES = {"square": (64, 64), "wide": (170, 50), "tall": (40, 110)}
TOKENS = {"square": 16 + 8 * 9, "wide": 16 + 4 * 13, "tall": 16 + 8 * 3}


class Bench:
    """Three pictures, a tokenizer, and datasets of them."""

    def __init__(self, folder: Path, tiny: TinyAssets) -> None:
        from transformers import CLIPImageProcessor

        self.folder = folder
        self.processor = CLIPImageProcessor.from_pretrained(tiny.clip)
        self.tokenizer = load_tokenizer(str(tiny.llama), padding_side="right", model_max_length=512)
        self.tokenizer.pad_token = self.tokenizer.unk_token
        for name, size in SIZES.items():
            Image.radial_gradient("L").resize(size).convert("RGB").save(folder / f"{name}.png")

    def dataset(
        self, *entries: dict[str, Any], aspect: str = "anyres", **flags: Any
    ) -> LazySupervisedDataset:
        path = self.folder / "data.json"
        path.write_text(json.dumps(entries))
        arguments = DataArguments(
            image_folder=str(self.folder),
            image_aspect_ratio=aspect,
            image_grid_pinpoints=PINPOINTS if aspect == "anyres" else None,
        )
        arguments.image_processor, arguments.is_multimodal, arguments.image_tokens = self.processor, True, 16
        arguments.mm_patch_merge_type = "spatial_unpad" if aspect == "anyres" else "flat"
        for name, value in flags.items():
            setattr(arguments, name, value)
        return LazySupervisedDataset(path, self.tokenizer, arguments)

    def picture(self, name: str) -> Image.Image:
        return Image.open(self.folder / f"{name}.png").convert("RGB")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny: TinyAssets) -> Bench:
    return Bench(tmp_path_factory.mktemp("several"), tiny)


@pytest.fixture(autouse=True)
def vicuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation_lib, "default_conversation", conversation_lib.conv_templates["v1"])


def sample(*said: str, images: list[str] | None = None, name: str = "s") -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(said)]
    shown = {} if images is None else {"image": [f"{image}.png" for image in images]}
    return {"id": name, "conversations": turns, **shown}


COMPARE = sample(
    "is <image> like <image>", "no", "and this:\n<image>", "yes", images=["square", "wide", "tall"]
)


def test_each_image_stays_where_it_is_spoken_of(bench: Bench):
    item = bench.dataset(COMPARE)[0]
    conversation = conversation_lib.conv_templates["v1"].copy()
    for place, turn in enumerate(COMPARE["conversations"]):
        conversation.append_message(conversation.roles[place % 2], turn["value"])
    assert item["input_ids"].tolist() == tokenizer_image_token(conversation.get_prompt(), bench.tokenizer)
    assert (item["input_ids"] == IMAGE_TOKEN_INDEX).sum() == 3
    targets = item["labels"][item["labels"] != -100]
    assert bench.tokenizer.decode(targets).replace(" ", "") == "no</s>yes</s>"


def test_a_list_of_one_is_one_image(bench: Bench):
    listed = sample("what is <image> here", "a ring", images=["wide"])
    alone = {**listed, "image": "wide.png"}
    first, second = bench.dataset(listed, alone)[0], bench.dataset(listed, alone)[1]
    assert torch.equal(first["input_ids"], second["input_ids"])
    assert torch.equal(first["image"], second["image"])
    moved = sample("<image>\nwhat is  here", "a ring", images=["wide"])
    assert torch.equal(bench.dataset(moved)[0]["input_ids"], first["input_ids"]), "to the front of its turn"


def test_start_and_end_tokens_stand_around_each(bench: Bench):
    bench.tokenizer.add_tokens(["<im_start>", "<im_end>"], special_tokens=True)
    start, end = bench.tokenizer.convert_tokens_to_ids(["<im_start>", "<im_end>"])
    ids = bench.dataset(COMPARE, mm_use_im_start_end=True)[0]["input_ids"].tolist()
    places = [n for n, i in enumerate(ids) if i == IMAGE_TOKEN_INDEX]
    assert len(places) == ids.count(start) == ids.count(end) == 3
    assert all(start in ids[n - 3 : n] and end in ids[n + 1 : n + 3] for n in places)


def test_captions_of_several_images(bench: Bench):
    conversation_lib.default_conversation = conversation_lib.conv_templates["plain"]
    ids = bench.dataset(sample("<image><image>", "two rings", images=["square", "wide"]))[0]["input_ids"]
    assert ids[:3].tolist() == [1, IMAGE_TOKEN_INDEX, IMAGE_TOKEN_INDEX]


@pytest.mark.parametrize("aspect", ["anyres", "pad", "square"])
def test_pixels_are_those_of_process_images_and_sizes_those_of_the_files(bench: Bench, aspect: str):
    dataset = bench.dataset(COMPARE, aspect=aspect)
    item = dataset[0]
    assert item["image_size"] == [SIZES[name] for name in ("square", "wide", "tall")]
    for pixels, name in zip(item["image"], ("square", "wide", "tall"), strict=True):
        expected = process_images([bench.picture(name)], bench.processor, dataset.data_args)[0]
        assert torch.equal(pixels, expected)
        assert pixels.ndim == (4 if aspect == "anyres" else 3)


def test_a_batch_lists_all_images_in_order(bench: Bench):
    dataset = bench.dataset(COMPARE, sample("who", "me"), sample("<image>", "a ring", images=["wide"]))
    items = [dataset[n] for n in range(3)]
    batch = DataCollatorForSupervisedDataset(bench.tokenizer)(items)
    assert [tuple(image.shape) for image in batch["images"]] == [
        (tiles, 3, 56, 56) for tiles in (5, 4, 3, 1, 4)
    ]
    assert batch["image_sizes"] == [SIZES["square"], SIZES["wide"], SIZES["tall"], (56, 56), SIZES["wide"]]
    assert not batch["images"][3].any(), "the text-only sample's"
    same = DataCollatorForSupervisedDataset(bench.tokenizer)([items[2], items[2]])
    assert same["images"].shape == (2, 4, 3, 56, 56)


def test_images_that_a_long_sample_speaks_of_too_late_are_left_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    item = bench.dataset(COMPARE)[0]
    late = (item["input_ids"] == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist()
    collate = DataCollatorForSupervisedDataset(bench.tokenizer)
    for limit, kept in ((late[2] + 1, 3), (late[2], 2), (late[1], 1), (late[0], 1)):
        monkeypatch.setattr(bench.tokenizer, "model_max_length", limit)
        batch = collate([item, item])  # a row without any `<image>` has one all the same
        assert batch["image_sizes"] == [SIZES[name] for name in ("square", "wide", "tall")[:kept]] * 2
        assert len(batch["images"]) == 2 * kept


def test_whole_images_are_one_tensor_however_many_a_sample_has(bench: Bench):
    dataset = bench.dataset(COMPARE, sample("who", "me"), aspect="pad")
    batch = DataCollatorForSupervisedDataset(bench.tokenizer)([dataset[0], dataset[1]])
    assert batch["images"].shape == (4, 3, 56, 56)
    assert len(batch["image_sizes"]) == 4


@pytest.mark.parametrize("name", list(SIZES))
def test_the_length_check_counts_the_tokens_that_the_model_makes(bench: Bench, name: str, monkeypatch):
    """Just enough room for the first token of the answer, and one too few."""
    entry = sample("<image>", "ring", images=[name])
    item = bench.dataset(entry)[0]
    before = int((item["labels"] != -100).nonzero()[0]) - 1 + TOKENS[name]
    monkeypatch.setattr(bench.tokenizer, "model_max_length", before + 1)
    assert bench.dataset(entry)[0]["id"] == "s"
    monkeypatch.setattr(bench.tokenizer, "model_max_length", before)
    with pytest.raises(
        SampleError, match=f"its first answer begins after --model_max_length {before} tokens"
    ):
        bench.dataset(entry)[0]


def test_the_whole_file_is_checked(bench: Bench):
    bad = [
        sample("<image>", "a", images=["wide", "tall"], name="reverse"),
        sample("<image> <image>", "a", images=["wide"], name="more"),
        sample("<image> <image>", "a", images=["wide", "gone"], name="gone"),
    ]
    problems = find_problems(bench.dataset(COMPARE, *bad, sample("who", "me")))
    assert list(problems) == [1, 2, 3]
    for name, problem in zip(("reverse", "more", "gone"), problems.values(), strict=True):
        assert problem.startswith(f"Sample '{name}' of ")
    assert "has 2 images and 1 <image> in its turns" in problems[1]
    assert "has 1 image and 2 <image> in its turns" in problems[2]
    assert "gone.png does not exist" in problems[3]


def test_samples_of_several_images_are_of_the_kind_with_images(bench: Bench):
    dataset = bench.dataset(COMPARE, sample("who", "me"))
    assert [length > 0 for length in dataset.modality_lengths] == [True, False]


def test_a_model_makes_as_many_tokens(bench: Bench, tiny: TinyAssets):
    """The numbers of this file against the model's own."""
    from tiny_llava import make_model

    model = make_model(tiny, mm_patch_merge_type="spatial_unpad").eval()
    model.config.image_aspect_ratio, model.config.image_grid_pinpoints = "anyres", PINPOINTS
    batch = DataCollatorForSupervisedDataset(bench.tokenizer)([bench.dataset(COMPARE)[0]])
    with torch.no_grad():
        logits = model(
            batch["input_ids"].clamp(max=model.config.vocab_size - 1),
            images=batch["images"],
            image_sizes=batch["image_sizes"],
        ).logits
    assert logits.shape[1] == batch["input_ids"].shape[1] - 3 + sum(TOKENS.values())
