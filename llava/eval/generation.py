"""From questions to a file of answers: what the `model_vqa*` programs share."""

from __future__ import annotations

import argparse
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.eval.answers_file import AnswersFile
from llava.eval.chunks import get_chunk
from llava.eval.command_line import InputError
from llava.eval.provenance import model_digest, versions
from llava.eval.questions import Question, check_pictures_exist, open_pictures

if TYPE_CHECKING:
    from PIL.Image import Image

ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
"""Digits and letters that cannot be taken for each other: upstream's answer ids are written in them."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """A loaded model.

    Attributes:
        answer: (prompts, pictures of each, settings of generation) -> answers.
        needs_start_end: its pictures stand between `<im_start>` and `<im_end>`.
        device: where it lies.
    """

    answer: Callable[..., list[str]]
    needs_start_end: bool
    device: str


def add_flags(flags: argparse.ArgumentParser, *, conv_mode: str, max_new_tokens: int) -> None:
    """The flags of every program that asks a LLaVA; upstream's, then ours."""
    add = flags.add_argument
    add("--model-path", default="facebook/opt-350m", help="folder or hub name of a LLaVA")
    add("--model-base", default=None, help="language model under a projector or a LoRA adapter")
    add("--image-folder", default="", help="where the questions' pictures lie")
    add("--conv-mode", default=conv_mode, help="prompt template")
    add("--num-chunks", type=int, default=1, help="parts of the questions ...")
    add("--chunk-idx", type=int, default=0, help="... and which of them to answer, from 0")
    add("--temperature", type=float, default=0.2, help="0 for the likeliest answer")
    add("--top_p", type=float, default=None, help="sample from the likeliest tokens of this probability")
    add("--num_beams", type=int, default=1, help="width of beam search")
    add("--max_new_tokens", type=int, default=max_new_tokens, help="longest answer")
    add_own_flags(flags)


def add_own_flags(flags: argparse.ArgumentParser) -> None:
    """The flags that upstream does not have."""
    add = flags.add_argument
    add("--batch-size", type=int, default=8, help="questions at once; answers do not depend on it")
    add("--seed", type=int, default=0, help="of sampling; temperature 0 needs none")
    add("--device", default=None, help="default: cuda where there is one, else cpu")
    add("--dtype", choices=("float16", "bfloat16", "float32"), help="default: float32 on a cpu, else float16")
    add("--overwrite", action="store_true", help="do not take an existing file of answers up, write it anew")


def ask_all(args: argparse.Namespace, questions: Sequence[Question], load: Callable[..., Speaker]) -> None:
    """Answer this chunk's questions that the answers file does not hold yet.

    Args:
        args: of a parser with `add_flags`, and `answers_file`.
        questions: all of them.
        load: `load_llava`, or another function of `args`.

    Raises:
        InputError: a picture, the model or the answers file is not what it must be.
    """
    from tqdm import tqdm

    if args.batch_size < 1:
        raise InputError(f"--batch-size is {args.batch_size}; it must be at least 1.")
    _resolve_device(args)
    questions = get_chunk(questions, args.num_chunks, args.chunk_idx)
    check_pictures_exist(questions)
    compose = prompt_maker(args.conv_mode)
    sampled = args.temperature > 0
    with AnswersFile(
        args.answers_file,
        [question.key for question in questions],
        _settings(args, questions),
        {"batch_size": args.batch_size, "device": args.device, "versions": versions()},
        overwrite=args.overwrite,
        multiple=args.batch_size if sampled else 1,  # a batch is drawn as one
    ) as answers:
        if answers.done == len(questions):
            print(f"{args.answers_file}: {len(questions)} answers, all there.")
            return
        speaker = load(args)
        start = answers.done
        progress = tqdm(total=len(questions), initial=start, desc=Path(args.answers_file).name)
        for batch, pictures in _batches(questions[start:], args.batch_size):
            if sampled:
                _seed(args.seed, answers.done)
            prompts = [compose(question, speaker.needs_start_end) for question in batch]
            texts = _answer(speaker, prompts, pictures, args)
            answers.append([_row(q, text, args) for q, text in zip(batch, texts, strict=True)])
            progress.update(len(batch))
        progress.close()


def _resolve_device(args: argparse.Namespace) -> None:
    if args.device is None:
        import torch

        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    args.dtype = args.dtype or ("float32" if args.device == "cpu" else "float16")


def load_llava(args: argparse.Namespace) -> Speaker:
    """The model of `--model-path`, on `--device` in `--dtype`.

    Raises:
        InputError: it cannot be loaded.
    """
    import torch

    from llava.eval.answering import answer_batch
    from llava.mm_utils import get_model_name_from_path
    from llava.model.builder import load_pretrained_model

    path = str(Path(args.model_path).expanduser()) if args.model_path.startswith("~") else args.model_path
    try:
        tokenizer, model, image_processor, _ = load_pretrained_model(
            path,
            args.model_base,
            get_model_name_from_path(path),
            device=args.device,
            torch_dtype=getattr(torch, args.dtype),
        )
    except (ValueError, FileNotFoundError) as error:
        raise InputError(str(error)) from error
    if image_processor is None:
        raise InputError(f"'{path}' is a plain language model, which sees nothing; pass a LLaVA.")

    def answer(prompts: Sequence[str], pictures: Sequence[Sequence[Image]], **generation: Any) -> list[str]:
        return answer_batch(model, tokenizer, image_processor, prompts, pictures, **generation)

    start_end = getattr(model.config, "mm_use_im_start_end", False)
    return Speaker(answer, start_end, str(model.device))


def prompt_maker(conv_mode: str) -> Callable[[Question, bool], str]:
    """A function of (question, start_end) that makes the whole prompt in a template.

    Raises:
        InputError: there is no such template.
    """
    from llava.conversation import conv_templates
    from llava.mm_utils import place_images

    if conv_mode not in conv_templates:
        raise InputError(f"--conv-mode is '{conv_mode}'; pass one of {', '.join(conv_templates)}.")

    def compose(question: Question, start_end: bool) -> str:
        conversation = conv_templates[conv_mode].copy()
        text = place_images(question.text, len(question.pictures), start_end)
        conversation.append_message(conversation.roles[0], text)
        conversation.append_message(conversation.roles[1], None)
        return conversation.get_prompt()

    return compose


def answer_id(*what: object) -> str:
    """22 characters in the style of `shortuuid`; equal for equal answers, so that files can be compared."""
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(what)).int
    digits = []
    for _ in range(22):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def _row(question: Question, text: str, args: argparse.Namespace) -> dict[str, Any]:
    from llava.mm_utils import get_model_name_from_path

    model = get_model_name_from_path(args.model_path)
    return {
        **question.key,
        "prompt": question.said,
        "text": text,
        **question.extra,
        "answer_id": answer_id(model, question.key, question.said, text),
        "model_id": model,
        "metadata": {},
    }


def _settings(args: argparse.Namespace, questions: Sequence[Question]) -> dict[str, Any]:
    """All that an answer depends on; the batch size is not among it."""
    asked = [[q.key, q.text, [picture.name for picture in q.pictures]] for q in questions]
    compose = prompt_maker(args.conv_mode)
    names = ("model_path", "model_base", "conv_mode", "temperature", "top_p", "num_beams", "max_new_tokens")
    settings = {name: getattr(args, name) for name in names}
    settings["model_digest"] = model_digest(args.model_path, args.model_base)
    settings["number_of_questions"] = len(questions)
    settings["questions_digest"] = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    settings["chunk"] = f"{args.chunk_idx} of {args.num_chunks}"
    settings["dtype"] = args.dtype
    settings["first_prompt"] = compose(questions[0], False) if questions else None
    if args.temperature > 0:  # what is drawn together shares its random numbers
        settings |= {"seed": args.seed, "batch_size": args.batch_size}
    return settings


def _batches(
    questions: Sequence[Question], size: int
) -> Iterator[tuple[Sequence[Question], list[list[Image]]]]:
    """Batches with their pictures; the next one's are read while the model answers."""
    batches = [questions[at : at + size] for at in range(0, len(questions), size)]
    with ThreadPoolExecutor(1) as reader:
        pending = [reader.submit(_pictures, batch) for batch in batches[:1]]
        for index, batch in enumerate(batches):
            pictures = pending.pop().result()
            if index + 1 < len(batches):
                pending.append(reader.submit(_pictures, batches[index + 1]))
            yield batch, pictures


def _pictures(batch: Sequence[Question]) -> list[list[Image]]:
    return [open_pictures(question) for question in batch]


def _answer(
    speaker: Speaker, prompts: Sequence[str], pictures: Sequence[Sequence[Image]], args: argparse.Namespace
) -> list[str]:
    import torch

    try:
        return speaker.answer(
            prompts,
            pictures,
            temperature=args.temperature,
            top_p=args.top_p if args.temperature > 0 else None,
            num_beams=args.num_beams,
            max_new_tokens=args.max_new_tokens,
        )
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            f"{len(prompts)} questions at once do not fit into the memory of {speaker.device}; pass a "
            "smaller --batch-size: the answers so far are kept."
        ) from error


def _seed(seed: int, index: int) -> None:
    """One stream of random numbers a batch, so that it is the same after an interruption."""
    import torch

    torch.manual_seed(seed + index)
