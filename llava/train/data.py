"""Samples on their way to the model: the dataset, the collator, and the check of a whole file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from llava import conversation as conversation_lib
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.train.preprocess import SampleError, check_turns, preprocess, preprocess_multimodal
from llava.train.sample_images import check_placeholders, image_names, no_image, read_images
from llava.train.samples import SampleFile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llava.train.arguments import DataArguments

logger = logging.getLogger(__name__)
_MOST_SKIPPED_IN_A_ROW = 100


class LazySupervisedDataset(Dataset[dict[str, Any]]):
    """The samples of `--data_path`, read and tokenized when they are asked for.

    An item is `input_ids` (L,) and `labels` (L,), int64, `id`, and in a multimodal run `image` float32 and
    `image_size` (width, height), lists of these where a sample has several images. An image is (3, H, W), or
    (tiles, 3, H, W) with `anyres`. A text-only sample there carries zeros, because the model takes an image
    for every row.

    With `on_bad_sample="skip"` the place of a sample that cannot be used is taken by the next usable one of
    its kind (with or without image). That depends on the data alone, so a resumed run sees the same samples,
    and grouping by kind holds. `skipped_samples_path` lists each once, as a JSON line.

    Args:
        data_path: A JSON list of samples.
        tokenizer: Of the LLM, with its `model_max_length` set.
        data_args: The run's `DataArguments`; a multimodal run has set `image_processor` on them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no JSON list, or an empty one.
        SampleError: (from an item) a sample cannot be used; the sentence names it.
    """

    def __init__(
        self, data_path: str | Path, tokenizer: PreTrainedTokenizerBase, data_args: DataArguments
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.data_args = data_args
        # Kept here because a spawned data worker starts with the module's default template.
        self.conversation = conversation_lib.default_conversation
        self.list_data_dict = SampleFile(data_path)
        if not len(self.list_data_dict):
            raise ValueError(f"--data_path {data_path} holds no samples: pass a file with at least one.")
        self.skipped: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.list_data_dict)

    @property
    def lengths(self) -> list[int]:
        """Words of each sample, at least 1, and 128 more with an image."""
        return [max(1, abs(length)) + 128 * (length > 0) for length in self.modality_lengths]

    @property
    def modality_lengths(self) -> list[int]:
        """Words of each sample, at least 1, negative for samples without image."""
        words = self.list_data_dict.words.clip(min=1)
        return [
            int(n) if image else -int(n)
            for n, image in zip(words, self.list_data_dict.has_image, strict=True)
        ]

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.data_args.on_bad_sample == "error":
            return self.sample(index)
        tried = 0
        for candidate in islice(self._same_kind(index), _MOST_SKIPPED_IN_A_ROW):
            tried += 1
            if candidate in self.skipped:
                continue
            try:
                return self.sample(candidate)
            except SampleError as error:
                count = self.record_skipped({candidate: str(error)})
                logger.warning("Skipped (%d so far): %s", count, error)
        raise SampleError(f"{tried} samples in a row are bad; the last one: {self.skipped[candidate]}")

    def sample(self, index: int) -> dict[str, Any]:
        """The item of one sample, or `SampleError` with a sentence that names the sample and its file."""
        entry = self.list_data_dict[index]
        try:
            item = self._read(entry)
        except SampleError as error:
            name = self._name(index, entry)
            raise SampleError(
                f"Sample {name!r} of {self.list_data_dict.path} cannot be used: {error}."
            ) from error
        return {**item, "id": self._name(index, entry)}

    def _read(self, entry: Any) -> dict[str, Any]:
        if not isinstance(entry, dict):
            raise SampleError(f"it is a {type(entry).__name__}; make it {{id, image, conversations}}")
        turns = check_turns(entry.get("conversations"))
        names = image_names(entry)
        if names and self.data_args.image_processor is None:
            raise SampleError("it has an image, but the run has no tower to see it; pass --vision_tower")
        if isinstance(
            entry.get("image"), list
        ):  # of a single image LLaVA forgives a second `<image>` in a turn
            check_placeholders(turns, len(names))
        if names:
            turns = preprocess_multimodal([turns], self.data_args, self.conversation, len(names))[0]
        check_placeholders(turns, len(names))
        coded = preprocess([turns], self.tokenizer, bool(names), self.conversation)
        item = {"input_ids": coded["input_ids"][0], "labels": coded["labels"][0]}
        images = read_images(names, self.data_args) if names else None
        self._check_length(item, images.tokens if images else [])
        if self.data_args.is_multimodal:
            pixels, sizes, _ = images or no_image(self.data_args)
            alone = len(pixels) == 1
            item |= {"image": pixels[0] if alone else pixels, "image_size": sizes[0] if alone else sizes}
        return item

    def _check_length(self, item: dict[str, torch.Tensor], image_tokens: Sequence[int]) -> None:
        limit = self.tokenizer.model_max_length
        width = torch.ones_like(item["input_ids"])
        width[item["input_ids"] == IMAGE_TOKEN_INDEX] = torch.tensor(image_tokens, dtype=width.dtype)
        places = (width.cumsum(0) - 1)[item["labels"] != IGNORE_INDEX]
        if not (places < limit).any():
            raise SampleError(
                f"its first answer begins after --model_max_length {limit} tokens, so nothing of it would be "
                "learned; shorten the sample or raise --model_max_length"
            )

    def _same_kind(self, index: int) -> Iterator[int]:
        kind = self.list_data_dict.has_image[index]
        count = len(self)
        return (
            place % count
            for place in range(index, index + count)
            if self.list_data_dict.has_image[place % count] == kind
        )

    def record_skipped(self, problems: Mapping[int, str]) -> int:
        """Skips samples from now on, lists new ones in `skipped_samples_path`; returns how many there are."""
        self.skipped.update(problems)
        if self.data_args.skipped_samples_path is None:
            return len(self.skipped)
        path = Path(self.data_args.skipped_samples_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            with suppress(ImportError):  # no such locks on Windows; a sample may be listed twice there
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed: data workers and ranks share it
            file.seek(0)
            lines = file.readlines()
            if lines and not lines[-1].endswith(b"\n"):  # a killed run tore it: its sample is listed anew
                lines.pop()
                file.truncate(sum(map(len, lines)))
            listed = {json.loads(line)["index"] for line in lines}
            for index in sorted(problems.keys() - listed):
                row = {"index": index, "id": self._name(index), "problem": problems[index]}
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return len(listed | problems.keys())

    def _name(self, index: int, entry: Any = None) -> str:
        entry = self.list_data_dict[index] if entry is None else entry
        return str(entry["id"]) if isinstance(entry, dict) and "id" in entry else f"number {index}"


@dataclass
class DataCollatorForSupervisedDataset:
    """Joins items into a batch, padded on the right and cut to the tokenizer's `model_max_length`."""

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, instances: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Makes a batch.

        Args:
            instances: Items of `LazySupervisedDataset`.

        Returns:
            `input_ids`, `labels` (B, L) int64; `attention_mask` (B, L) bool, from lengths, so that an `<unk>`
            in the text counts although it is also the pad token; `sample_ids`. In a multimodal run `images`,
            all of the batch in order: (N, 3, H, W), or (N, tiles, 3, H, W), or a list where shapes differ;
            and `image_sizes`, (width, height) of each.
        """
        limit = self.tokenizer.model_max_length
        ids = [item["input_ids"][:limit] for item in instances]
        labels = [item["labels"][:limit] for item in instances]
        lengths = torch.tensor([len(row) for row in ids])
        batch: dict[str, Any] = {
            "input_ids": pad_sequence(ids, True, self.tokenizer.pad_token_id),
            "labels": pad_sequence(labels, True, IGNORE_INDEX),
            "attention_mask": torch.arange(int(lengths.max())) < lengths[:, None],
            "sample_ids": [item.get("id", "") for item in instances],
        }
        if "image" in instances[0]:
            images = [
                image for item, row in zip(instances, ids, strict=True) for image in _kept(item["image"], row)
            ]
            batch["images"] = torch.stack(images) if len({image.shape for image in images}) == 1 else images
        if "image_size" in instances[0]:
            pairs = zip(instances, ids, strict=True)
            batch["image_sizes"] = [size for item, row in pairs for size in _kept(item["image_size"], row)]
        return batch


def _kept(value: Any, ids: torch.Tensor) -> list[Any]:
    """What belongs to the images whose `<image>` is left in a row that may have been cut; at least one."""
    values = value if isinstance(value, list) else [value]
    return values[: max(1, int((ids == IMAGE_TOKEN_INDEX).sum()))]


def make_supervised_data_module(
    tokenizer: PreTrainedTokenizerBase, data_args: DataArguments, num_workers: int = 0
) -> dict[str, Any]:
    """The data arguments of a Trainer: `train_dataset`, `eval_dataset` (None) and `data_collator`.

    Args:
        tokenizer: Of the LLM.
        data_args: The run's; with `validate_data` every sample is read first.
        num_workers: Processes for that.

    Raises:
        FileNotFoundError: There is no such data file.
        ValueError: The file is no JSON list, or an empty one.
        SampleError: `validate_data` found samples that cannot be used, and `on_bad_sample` is "error".
    """
    dataset = LazySupervisedDataset(data_args.data_path or "", tokenizer, data_args)
    if data_args.validate_data:
        from llava.train.validate import validate

        validate(dataset, num_workers)
    return {
        "train_dataset": dataset,
        "eval_dataset": None,
        "data_collator": DataCollatorForSupervisedDataset(tokenizer),
    }
