"""What both packages named `llava` are asked to do, written once against the names that they share.

Here, `llava` is whichever package the running interpreter has: the test process calls these functions for
ours, `worker.py` calls the same functions in upstream's environment. Results are plain containers and CPU
tensors.
"""

from __future__ import annotations

import contextlib
import cProfile
import io
import itertools
import pstats
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch


def collated_rows(
    *,
    data_path: str,
    image_folder: str,
    tokenizer: str,
    clip: str,
    version: str,
    legacy: bool,
    max_length: int,
) -> list[dict[str, Any]]:
    """Each sample of a data file as training sees it when alone in a batch.

    Returns:
        A row each: `input_ids (L,)`, `labels (L,)`, `images (3, H, W)`.
        A sample that the package refuses gives `{"error": ...}` instead.
    """
    from transformers import AutoTokenizer, CLIPImageProcessor

    from llava import conversation
    from llava.train.train import (
        DataArguments,
        DataCollatorForSupervisedDataset,
        LazySupervisedDataset,
    )

    text_tokenizer = AutoTokenizer.from_pretrained(
        tokenizer, model_max_length=max_length, padding_side="right", use_fast=False, legacy=legacy
    )
    text_tokenizer.pad_token = text_tokenizer.unk_token
    conversation.default_conversation = conversation.conv_templates[version]
    data_args = DataArguments(
        data_path=data_path, lazy_preprocess=True, image_folder=image_folder, image_aspect_ratio="pad"
    )
    data_args.is_multimodal = True
    data_args.mm_use_im_start_end = False
    data_args.image_processor = CLIPImageProcessor.from_pretrained(clip)
    dataset = LazySupervisedDataset(data_path=data_path, tokenizer=text_tokenizer, data_args=data_args)
    collate = DataCollatorForSupervisedDataset(tokenizer=text_tokenizer)

    def row(index: int) -> dict[str, Any]:
        try:
            batch = collate([dataset[index]])
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        return {key: batch[key][0].clone() for key in ("input_ids", "labels", "images")}

    return [row(index) for index in range(len(dataset))]


def answer(
    *,
    model_path: str,
    model_base: str | None,
    image: str,
    question: str,
    conv_mode: str,
    num_tokens: int = 12,
) -> dict[str, Any]:
    """Loads a checkpoint folder as an evaluation script does and asks it one question about one picture.

    Loaded in half precision, the default of both, and then widened. The vision tower is made to go the same
    way: which precision it is loaded in depends on the device. Transformers 4.37 keeps its tables of rotary
    angles in half precision then, where later versions compute them: they are made anew.
    """
    from PIL import Image

    from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
    from llava.conversation import conv_templates
    from llava.mm_utils import get_model_name_from_path, process_images, tokenizer_image_token
    from llava.model.builder import load_pretrained_model

    tokenizer, model, image_processor, context_length = load_pretrained_model(
        model_path, model_base, get_model_name_from_path(model_path), device="cpu"
    )
    loaded_dtype = str(model.dtype)
    model.get_vision_tower().half()
    model = model.float().eval()
    for module in model.modules():
        if hasattr(module, "_set_cos_sin_cache"):
            module._set_cos_sin_cache(module.max_seq_len_cached, "cpu", torch.float32)
    conversation = conv_templates[conv_mode].copy()
    conversation.append_message(conversation.roles[0], f"{DEFAULT_IMAGE_TOKEN}\n{question}")
    conversation.append_message(conversation.roles[1], None)
    # The `plain` template of stage 1 has no generation slot: its prompt is the image alone.
    prompt = DEFAULT_IMAGE_TOKEN if conv_mode == "plain" else conversation.get_prompt()
    input_ids = tokenizer_image_token(prompt, tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")[None]
    with Image.open(image) as opened:
        images = process_images([opened.convert("RGB")], image_processor, model.config).float()
    # Answers of the training data are one word long, which would compare one token.
    lengths = {"max_new_tokens": num_tokens, "min_new_tokens": num_tokens}
    with torch.inference_mode():
        logits = model(input_ids, images=images).logits[0]
        tokens = model.generate(input_ids, images=images, do_sample=False, **lengths)[0]
    return {
        "input_ids": input_ids[0],
        "images": images[0],
        "logits": logits.clone(),
        # transformers 4.37 puts a BOS before what it generates from embeddings.
        "tokens": tokens[1:].clone() if tokens[:1].tolist() == [tokenizer.bos_token_id] else tokens.clone(),
        "context_length": context_length,
        "loaded_dtype": loaded_dtype,
    }


def train(*, argv: list[str], profile: bool = False) -> dict[str, Any]:
    """One training run from flags, in the order of the data file.

    Returns:
        `losses`, one a step and unrounded, `step_seconds`: the CPU seconds from the start of a step to the
        start of the next, so one fewer, with everything that the Trainer does in between, and with `profile`
        where these went, as text.
    """
    from llava.train import train as module

    losses: list[float] = []
    starts: list[float] = []
    profiler = cProfile.Profile()
    step = module.LLaVATrainer.training_step

    def recorded(trainer: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        profiler.disable()
        starts.append(time.process_time())
        if profile and len(starts) < trainer.state.max_steps:
            profiler.enable()
        loss = step(trainer, *args, **kwargs)
        losses.append(float(loss))
        return loss

    with (
        _command_line(argv),
        _file_order(module.LLaVATrainer),
        mock.patch.object(module.LLaVATrainer, "training_step", recorded),
    ):
        module.train()
    return {
        "losses": losses,
        "step_seconds": [after - before for before, after in itertools.pairwise(starts)],
        "profile": _profile_text(profiler) if profile else "",
    }


def _profile_text(profiler: cProfile.Profile, rows: int = 14) -> str:
    """The functions with the most time of their own."""
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(rows)
    return "\n".join(line for line in text.getvalue().splitlines() if line.strip())


class _Prepared(Exception):
    """Carries the trainer out of upstream's `train()`; nothing went wrong."""

    def __init__(self, trainer: Any) -> None:
        super().__init__("the trainer is ready")
        self.trainer = trainer


def prepare_step(*, argv: list[str]) -> Callable[[int], dict[str, Any]]:
    """Everything that training with these flags does before its first step; the batch is the first one.

    Returns:
        A function of a number of repetitions that runs forward and backward so often, without an optimizer,
        and gives `loss` and the `seconds` of CPU time that it took.
    """
    from llava.train import train as module

    def stop(trainer: Any, *args: Any, **kwargs: Any) -> None:
        raise _Prepared(trainer)

    with (
        _command_line(argv),
        _file_order(module.LLaVATrainer),
        mock.patch.object(module.LLaVATrainer, "train", stop),
    ):
        try:
            module.train()
        except _Prepared as prepared:
            trainer = prepared.trainer
        batch = next(iter(trainer.get_train_dataloader()))
    model = trainer.model.train()
    inputs = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}

    def run(repetitions: int) -> dict[str, Any]:
        start = time.process_time()
        for _ in range(repetitions):
            model.zero_grad(set_to_none=True)
            loss = model(**inputs).loss
            loss.backward()
        return {"loss": float(loss.detach()), "seconds": time.process_time() - start}

    return run


@contextlib.contextmanager
def _command_line(argv: list[str]) -> Iterator[None]:
    with mock.patch.object(sys, "argv", ["train", *argv]):
        yield


@contextlib.contextmanager
def _file_order(trainer_class: type) -> Iterator[None]:
    """Two versions of transformers draw two permutations from one seed; what is compared here is the rest."""

    def sampler(trainer: Any, *_: Any) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(trainer.train_dataset)

    with mock.patch.object(trainer_class, "_get_train_sampler", sampler):
        yield


def versions() -> dict[str, str]:
    """Which packages are at work."""
    import accelerate
    import transformers

    import llava

    return {
        "llava": str(Path(llava.__file__).parent),
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
        "torch": str(torch.__version__),
    }
