"""What a data file can do wrong: one sentence each, and `--validate_data`, `--on_bad_sample`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from llava import conversation as conversation_lib
from llava.tokenization import load_tokenizer
from llava.train.arguments import DataArguments
from llava.train.data import LazySupervisedDataset, make_supervised_data_module
from llava.train.preprocess import SampleError
from llava.train.samples import SampleFile

if TYPE_CHECKING:
    from tests.conftest import TinyAssets


@pytest.fixture(scope="module")
def processor():
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})


class Bench:
    """A folder with images, good and bad, and the means to make a dataset of some entries."""

    def __init__(self, folder: Path, tokenizer: Any, processor: Any) -> None:
        self.folder, self.tokenizer, self.processor = folder, tokenizer, processor
        self.json = folder / "data.json"
        picture = Image.frombytes("RGB", (64, 48), bytes(range(256)) * 36)
        picture.save(folder / "good.png")
        picture.save(folder / "whole.jpg")
        (folder / "torn.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-400])
        (folder / "words.jpg").write_text("this is a text")

    def arguments(self, **flags: Any) -> DataArguments:
        arguments = DataArguments(data_path=str(self.json), image_folder=str(self.folder), **flags)
        arguments.image_processor, arguments.is_multimodal, arguments.image_tokens = self.processor, True, 4
        return arguments

    def dataset(self, *entries: Any, **flags: Any) -> LazySupervisedDataset:
        self.json.write_text(json.dumps(entries))
        return LazySupervisedDataset(self.json, self.tokenizer, self.arguments(**flags))


@pytest.fixture
def bench(tmp_path: Path, tiny: TinyAssets, processor: Any, monkeypatch: pytest.MonkeyPatch) -> Bench:
    tokenizer = load_tokenizer(str(tiny.llama), padding_side="right", model_max_length=96)
    tokenizer.pad_token = tokenizer.unk_token
    monkeypatch.setattr(conversation_lib, "default_conversation", conversation_lib.conv_templates["v1"])
    return Bench(tmp_path, tokenizer, processor)


def sample(name: str, *said: str, image: Any = None) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(said)]
    return {"id": name, "conversations": turns, **({} if image is None else {"image": image})}


def speakers(name: str, *who: str) -> dict[str, Any]:
    return {"id": name, "conversations": [{"from": speaker, "value": "a ring"} for speaker in who]}


SEEN = "<image>\nwhat is it"
PROBLEMS = {
    "missing image": (
        sample("s1", SEEN, "a ring", image="gone.png"),
        "its image {folder}/gone.png does not exist; check --image_folder and the sample's `image`",
    ),
    "truncated JPEG": (
        sample("s2", SEEN, "a ring", image="torn.jpg"),
        "its image {folder}/torn.jpg is damaged (image file is truncated ({left} bytes not processed)); "
        "fetch it again",
    ),
    "text named .jpg": (
        sample("s3", SEEN, "a ring", image="words.jpg"),
        "its image {folder}/words.jpg is not an image file, whatever its name says; replace it",
    ),
    "image that is no path": (
        sample("s4", SEEN, "a ring", image=7),
        "its image is 7; give the path of an image file, or a list of such paths",
    ),
    "unknown role": (
        speakers("s5", "user", "assistant"),
        "turn 1 is from 'user'; the speakers must be 'human' and 'gpt'",
    ),
    "one role twice": (
        speakers("s6", "gpt", "human", "gpt", "gpt"),
        "turns 3 and 4 are both from 'gpt'; 'human' and 'gpt' must alternate",
    ),
    "placeholder without image": (
        sample("s7", SEEN, "a ring"),
        "it has 0 images and 1 <image> in its turns; write <image> once for each image and nowhere else",
    ),
    "image without placeholder": (
        sample("s8", "what is it", "a ring", image="good.png"),
        "it has 1 image and 0 <image> in its turns; write <image> once for each image and nowhere else",
    ),
    "two placeholders": (
        sample("s9", SEEN, "a ring", SEEN, "a ring", image="good.png"),
        "it has 1 image and 2 <image> in its turns; write <image> once for each image and nowhere else",
    ),
    "more placeholders than images in a list": (
        sample("s18", SEEN + SEEN + SEEN, "a ring", image=["good.png", "whole.jpg"]),
        "it has 2 images and 3 <image> in its turns; write <image> once for each image and nowhere else",
    ),
    "more images than placeholders": (
        sample("s19", SEEN, "a ring", image=["good.png", "whole.jpg"]),
        "it has 2 images and 1 <image> in its turns; write <image> once for each image and nowhere else",
    ),
    "two placeholders for a list of one": (
        sample("s20", SEEN + SEEN, "a ring", image=["good.png"]),
        "it has 1 image and 2 <image> in its turns; write <image> once for each image and nowhere else",
    ),
    "an empty list of images": (
        sample("s21", SEEN, "a ring", image=[]),
        "its image is []; give the path of an image file, or a list of such paths",
    ),
    "one image of several is missing": (
        sample("s22", SEEN, "a ring", SEEN, "a ring", image=["good.png", "gone.png"]),
        "its image {folder}/gone.png does not exist; check --image_folder and the sample's `image`",
    ),
    "empty answer": (
        sample("s10", "what", "a ring", "what", ""),
        "turn 4 is an empty answer; write one or remove the turn pair",
    ),
    "empty question": (
        sample("s11", "", "a ring"),
        "turn 1 is an empty question; write one or remove the turn pair",
    ),
    "no answer": (
        sample("s12", "what"),
        "it has no answer to learn; add a 'gpt' turn after a 'human' turn",
    ),
    "over-long text": (
        sample("s13", "what is it " * 60, "a ring"),
        "its first answer begins after --model_max_length 96 tokens, so nothing of it would be learned; "
        "shorten the sample or raise --model_max_length",
    ),
    "over-long with image": (
        sample("s14", SEEN * 1 + " left" * 90, "a ring", image="good.png"),
        "its first answer begins after --model_max_length 96 tokens, so nothing of it would be learned; "
        "shorten the sample or raise --model_max_length",
    ),
    "no conversations": (
        {"id": "s15"},
        "it has no `conversations`; give it a list of {{from, value}} turns",
    ),
    "turn without text": (
        {"id": "s16", "conversations": [{"from": "human", "value": None}]},
        "turn 1 is not {{from, value}} with a text as value; rewrite it so",
    ),
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_bad_sample_is_one_sentence(bench: Bench, kind: str):
    entry, problem = PROBLEMS[kind]
    dataset = bench.dataset(sample("fine", SEEN, "a ring", image="good.png"), entry)
    assert dataset[0]["id"] == "fine"
    with pytest.raises(SampleError) as error:
        dataset[1]
    left = str(error.value).partition("truncated (")[2].partition(" ")[0]
    problem = problem.format(folder=bench.folder, left=left)
    assert str(error.value) == f"Sample '{entry['id']}' of {bench.json} cannot be used: {problem}."


def test_a_data_workers_error_is_the_same_sentence(bench: Bench):
    dataset = bench.dataset(PROBLEMS["missing image"][0])
    with pytest.raises(SampleError) as error:
        list(torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1))
    assert str(error.value) == (
        f"Sample 's1' of {bench.json} cannot be used: its image {bench.folder}/gone.png does not exist; "
        "check --image_folder and the sample's `image`."
    )


def test_a_sample_without_id_is_named_by_its_place(bench: Bench):
    dataset = bench.dataset(["not", "a", "sample"])
    with pytest.raises(SampleError) as error:
        dataset[0]
    assert str(error.value) == (
        f"Sample 'number 0' of {bench.json} cannot be used: "
        "it is a list; make it {id, image, conversations}."
    )


def test_an_image_in_a_text_only_run(bench: Bench):
    dataset = bench.dataset(sample("s", SEEN, "a ring", image="good.png"))
    dataset.data_args.image_processor, dataset.data_args.is_multimodal = None, False
    with pytest.raises(
        SampleError, match="has an image, but the run has no tower to see it; pass --vision_tower"
    ):
        dataset[0]


def test_plain_takes_one_caption(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversation_lib, "default_conversation", conversation_lib.conv_templates["plain"])
    dataset = bench.dataset(sample("s", "what", "a ring"), sample("t", SEEN, "a", "b", "c", image="good.png"))
    for index in range(2):
        with pytest.raises(
            SampleError, match="--version plain takes one question with <image> and one caption"
        ):
            dataset[index]


def test_a_partly_cut_sample_is_no_problem(bench: Bench):
    item = bench.dataset(sample("s", "what", "a ring", "what is it " * 60, "a ring"))[0]
    assert len(item["input_ids"]) == 96


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"id": 1},\n {"id": 2,}]', "line 2, column 10 (Illegal trailing comma before end of object)"),
        ('[{"id": 1}\n {"id": 2}]', "line 2, column 2 (a comma or the end of the list was expected)"),
        ('[{"id": 1},\n', "line 2, column 1 (Expecting value)"),
        ('{"id": 1}', "line 1, column 1 (a list was expected)"),
        ('[{"id": 1}]\n]', "line 2, column 1 (the list has ended, but the file goes on)"),
        ("", "line 1, column 1 (a list was expected)"),
    ],
)
def test_malformed_json_is_found_by_line_and_column(tmp_path: Path, text: str, found: str):
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the whole text is compared
        SampleFile(path)
    older = found.replace(
        "column 10 (Illegal trailing comma before end of object",
        "column 11 (Expecting property name enclosed in double quotes",
    )  # Python < 3.13
    assert str(error.value) in {
        f"--data_path {path} is not a valid JSON list at {words}: repair the file there."
        for words in (found, older)
    }


def test_a_file_that_is_missing_empty_or_not_text(tmp_path: Path, bench: Bench):
    with pytest.raises(FileNotFoundError) as missing:
        SampleFile(tmp_path / "gone.json")
    assert str(missing.value) == (
        f"--data_path {tmp_path / 'gone.json'} is not a file: pass the JSON file of the samples."
    )
    with pytest.raises(ValueError, match="holds no samples: pass a file with at least one"):
        bench.dataset()
    bench.json.write_bytes(b'[{"id": "\xff"}]')
    with pytest.raises(ValueError, match="is not UTF-8 at byte 9: save it as UTF-8 JSON"):
        SampleFile(bench.json)


def mixed() -> list[dict[str, Any]]:
    """Of each kind, with image and text-only, some bad samples at the beginning, in a row, and at the end."""
    return [
        PROBLEMS["missing image"][0],
        sample("text-1", "what", "a ring"),
        sample("image-1", SEEN, "a ring", image="good.png"),
        PROBLEMS["empty answer"][0],
        PROBLEMS["truncated JPEG"][0],
        PROBLEMS["text named .jpg"][0],
        sample("image-2", SEEN, "a circle", image="whole.jpg"),
        sample("text-2", "what is it", "a circle"),
        PROBLEMS["unknown role"][0],
    ]


REPLACED = ["image-1", "text-1", "image-1", "text-2", "image-2", "image-2", "image-2", "text-2", "text-1"]


@pytest.mark.parametrize("order", [range(9), reversed(range(9)), [4, 0, 8, 4, 5, 3, 2, 1, 6, 7]])
def test_skip_takes_the_next_usable_sample_of_the_kind(bench: Bench, order: Any):
    """The same whatever was asked before, so a resumed run sees the same samples."""
    dataset = bench.dataset(*mixed(), on_bad_sample="skip")
    for index in order:
        item = dataset[index]
        assert item["id"] == REPLACED[index]
        assert item["id"].startswith("image") == (dataset.modality_lengths[index] > 0)


def test_skip_counts_and_lists_each_once_over_processes(bench: Bench, caplog: pytest.LogCaptureFixture):
    dataset = bench.dataset(*mixed(), on_bad_sample="skip")
    listing = bench.folder / "run" / "skipped_samples.jsonl"
    dataset.data_args.skipped_samples_path = str(listing)
    for _ in range(2):  # two epochs, each with new workers
        loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)
        assert [item["id"] for item in loader] == REPLACED
    rows = [json.loads(line) for line in listing.read_text().splitlines()]
    assert sorted((row["index"], row["id"]) for row in rows) == [
        (0, "s1"),
        (3, "s10"),
        (4, "s2"),
        (5, "s3"),
        (8, "s5"),
    ]
    with caplog.at_level(logging.WARNING, "llava"):
        dataset[3]
        dataset[3]
    assert caplog.messages == [
        f"Skipped (5 so far): Sample 's10' of {bench.json} cannot be used: "
        "turn 4 is an empty answer; write one or remove the turn pair."
    ]


def test_skip_gives_up_where_nothing_can_be_used(bench: Bench):
    dataset = bench.dataset(*[PROBLEMS["missing image"][0]] * 120, on_bad_sample="skip")
    with pytest.raises(SampleError) as error:
        dataset[7]
    assert str(error.value) == (
        f"100 samples in a row are bad; the last one: Sample 's1' of {bench.json} cannot be used: "
        f"its image {bench.folder}/gone.png does not exist; check --image_folder and the sample's `image`."
    )


def test_validate_data_reports_everything_before_training(bench: Bench):
    bench.dataset(*mixed())
    with pytest.raises(SampleError) as error:
        make_supervised_data_module(bench.tokenizer, bench.arguments(validate_data=True))
    first, *listed = str(error.value).splitlines()
    assert first == (
        f"5 of 9 samples of {bench.json} cannot be used; repair or remove them, "
        "or pass --on_bad_sample skip to train without them:"
    )
    assert [line.split("'")[1] for line in listed] == ["s1", "s10", "s2", "s3", "s5"]


def test_torn_line_of_a_killed_run_is_written_anew(bench: Bench):
    dataset = bench.dataset(*mixed(), on_bad_sample="skip")
    listing = bench.folder / "skipped_samples.jsonl"
    dataset.data_args.skipped_samples_path = str(listing)
    dataset.record_skipped({3: "früh\u2028", 0: "torn"})
    listing.write_bytes(listing.read_bytes()[:-4])  # in a letter of the row of sample 3, the last
    assert dataset.record_skipped({4: "late"}) == 2
    assert dataset.record_skipped({3: "früh\u2028"}) == 3
    assert [json.loads(line)["index"] for line in listing.read_bytes().splitlines()] == [0, 4, 3]


def test_validate_data_with_skip_says_what_it_will_skip(bench: Bench, caplog: pytest.LogCaptureFixture):
    bench.dataset(*mixed())
    arguments = bench.arguments(validate_data=True, on_bad_sample="skip")
    arguments.skipped_samples_path = str(bench.folder / "skipped_samples.jsonl")
    with caplog.at_level(logging.WARNING, "llava"):
        module = make_supervised_data_module(bench.tokenizer, arguments, num_workers=2)
    assert caplog.messages[0].startswith(
        f"5 of 9 samples of {bench.json} cannot be used and will be skipped:\n"
    )
    assert len((bench.folder / "skipped_samples.jsonl").read_text().splitlines()) == 5
    caplog.clear()
    assert [module["train_dataset"][index]["id"] for index in range(9)] == REPLACED
    assert not caplog.messages, "what is known is not read again"


def test_validate_data_shortens_a_long_list(bench: Bench):
    bench.dataset(*[PROBLEMS["empty answer"][0]] * 30, sample("fine", "what", "a ring"))
    with pytest.raises(SampleError) as error:
        make_supervised_data_module(bench.tokenizer, bench.arguments(validate_data=True))
    lines = str(error.value).splitlines()
    assert lines[0].startswith("30 of 31 samples")
    assert len(lines) == 22
    assert lines[-1] == "... and 10 more"


def test_good_data_passes_in_silence(bench: Bench, caplog: pytest.LogCaptureFixture):
    bench.dataset(sample("fine", "what", "a ring"), sample("seen", SEEN, "a ring", image="good.png"))
    module = make_supervised_data_module(bench.tokenizer, bench.arguments(validate_data=True))
    assert len(module["train_dataset"]) == 2
    assert not [record for record in caplog.records if record.name.startswith("llava")]
