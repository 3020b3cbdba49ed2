"""Answers per second of a LLaVA that is asked 16 questions at once, against one at a time.

The questions are ragged: prompts of 3 to 60 words, with no picture, one, two or three, of several shapes. A
share of the vocabulary ends an answer, so that rows stop at different times and a batch runs on until its
last one has. Both ways go through `llava.eval.answering.answer_batch`, from text and pictures to text:
prompts, preprocessing, tower and decoding are all counted. The answers are compared before anything is
reported. The two take turns in one process; the ratio is that of the best turn of each, in CPU time of one
thread where the device is the CPU, which other work on the machine disturbs least.

The default model is deep and narrow: most of the time goes into decoding, and a step costs little more for
sixteen rows than for one, as on an accelerator. With --width 128 and more, arithmetic fills a CPU core, which
reads sixteen prompts no faster than one by one, and the ratio falls to 2 or 3.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import platform
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
WORDS = (
    "what",
    "colour",
    "has",
    "the",
    "ring",
    "left",
    "of",
    "red",
    "squares",
    "and",
    "which",
    "is",
    "above",
)
SHAPES = [(56, 56), (90, 40), (40, 80), (64, 64)]


class Question(NamedTuple):
    """A whole prompt and its pictures."""

    prompt: str
    pictures: list[Any]


def make_questions(count: int, seed: int = 0) -> list[Question]:
    """Of any lengths, every fourth without a picture, every eighth with two, every eighth with three."""
    from PIL import Image

    from llava.conversation import conv_templates
    from llava.mm_utils import place_images

    draw = random.Random(seed)
    questions = []
    for number in range(count):
        shown = (1, 0, 2, 1, 1, 0, 3, 1)[number % 8]
        pictures = []
        for _ in range(shown):
            size = draw.choice(SHAPES)
            pictures.append(Image.frombytes("RGB", size, draw.randbytes(3 * size[0] * size[1])))
        conversation = conv_templates["v1"].copy()
        text = " ".join(draw.choices(WORDS, k=draw.randint(3, 60)))
        conversation.append_message(conversation.roles[0], place_images(text, shown, start_end=False))
        conversation.append_message(conversation.roles[1], None)
        questions.append(Question(conversation.get_prompt(), pictures))
    draw.shuffle(questions)
    return questions


def make_model(args: argparse.Namespace, folder: Path) -> tuple[Any, Any, Any]:
    """Model, tokenizer and image processor of a LLaVA of random weights."""
    from llava import LlavaLlamaForCausalLM
    from llava.tokenization import load_tokenizer
    from regap_patch.study import tiny
    from regap_patch.study.world import make_world

    world = make_world(folder / "world", num_pretrain=64, num_finetune=64, num_questions=8)
    tiny.train_tokenizer(world.corpus, folder / "tokenizer")
    tiny.make_tiny_llama(
        folder / "llama",
        folder / "tokenizer",
        hidden_size=args.width,
        num_layers=args.layers,
        num_heads=max(1, args.width // 64),
    )
    tiny.make_tiny_clip(folder / "clip")
    torch.manual_seed(0)
    model = LlavaLlamaForCausalLM.from_pretrained(folder / "llama", dtype=torch.float32)
    model.get_model().initialize_vision_modules(
        argparse.Namespace(
            vision_tower=str(folder / "clip"),
            mm_vision_select_layer=-2,
            mm_vision_select_feature="patch",
            mm_projector_type="mlp2x_gelu",
            mm_patch_merge_type="spatial_unpad" if args.anyres else "flat",
            pretrain_mm_mlp_adapter=None,
        )
    )
    model.config.image_aspect_ratio = "anyres" if args.anyres else "pad"
    model.config.image_grid_pinpoints = PINPOINTS
    make_talkative(model, args.stop_share)
    tokenizer = load_tokenizer(str(folder / "llama"))
    return model.to(args.device).eval(), tokenizer, model.get_vision_tower().image_processor


def make_talkative(model: Any, stop_share: float) -> None:
    """Make a model of random weights give each question an answer, and a length, of its own.

    Args:
        model: its weights of standard deviation 0.02 make attention flat, and all answers alike: they grow.
        stop_share: of the vocabulary, whose tokens end an answer.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "vision_tower" not in name:
                parameter.mul_(0.12 / parameter.std())
    ends = range(3, model.config.vocab_size, round(1 / stop_share)) if stop_share else ()
    model.generation_config.eos_token_id = sorted({2, *ends})


def answer_all(
    model: Any, tokenizer: Any, processor: Any, questions: Sequence[Question], batch: int, max_new_tokens: int
) -> list[str]:
    """Answers in the order of the questions, `batch` at a time."""
    from llava.eval.answering import answer_batch

    answers: list[str] = []
    for first in range(0, len(questions), batch):
        asked = questions[first : first + batch]
        answers += answer_batch(
            model,
            tokenizer,
            processor,
            [question.prompt for question in asked],
            [question.pictures for question in asked],
            max_new_tokens=max_new_tokens,
        )
    return answers


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One line of results.

    Raises:
        SystemExit: answers depend on the batch.
    """
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        loaded = make_model(args, Path(folder))
    questions = make_questions(args.questions)
    answers: dict[int, list[str]] = {}
    seconds: dict[int, list[float]] = {1: [], args.batch: []}
    answer_all(*loaded, questions[: args.batch], args.batch, 2)  # whatever only the first call does
    for _ in range(args.repeats):
        for batch, taken in seconds.items():
            began = clock()
            answers[batch] = answer_all(*loaded, questions, batch, args.max_new_tokens)
            taken.append(clock() - began)
    equal = sum(one == other for one, other in zip(answers[1], answers[args.batch], strict=True))
    if equal != len(questions):
        raise SystemExit(f"Only {equal} of {len(questions)} answers are the same in batches of {args.batch}.")
    best = {batch: min(taken) for batch, taken in seconds.items()}
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "bench": "batched_generation",
        "device": "cpu x1" if args.device == "cpu" else torch.cuda.get_device_name(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "dtype": "float32",
        "layers": args.layers,
        "width": args.width,
        "anyres": args.anyres,
        "questions": len(questions),
        "equal": equal,
        "different": len(set(answers[1])),
        "max_new_tokens": args.max_new_tokens,
        "stop_share": args.stop_share,
        "batch": args.batch,
        "turns": args.repeats,
        "per_second_1": round(len(questions) / best[1], 2),
        f"per_second_{args.batch}": round(len(questions) / best[args.batch], 2),
        "ratio": round(best[1] / best[args.batch], 2),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--layers", type=int, default=8)
    flags.add_argument("--width", type=int, default=64)
    flags.add_argument("--anyres", action="store_true", help="pictures in tiles, joined as spatial_unpad")
    flags.add_argument("--questions", type=int, default=32)
    flags.add_argument("--batch", type=int, default=16)
    flags.add_argument("--max_new_tokens", type=int, default=64)
    flags.add_argument("--stop_share", type=float, default=0.02, help="of the vocabulary ends an answer")
    flags.add_argument("--repeats", type=int, default=3, help="turns of both")
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--limit", type=float, default=4.0, help="fail below this ratio")
    flags.add_argument(
        "--output_path", type=Path, default=Path("playground/runs/bench_batched_generation.csv")
    )
    return flags


def main() -> None:
    args = parser().parse_args()
    torch.set_num_threads(1)
    result = measure(args)
    args.output_path.parent.mkdir(parents=True, exist_ok=True)
    new = not args.output_path.exists()
    with args.output_path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(result))
        if new:
            writer.writeheader()
        writer.writerow(result)
    print(
        f"batch 1: {result['per_second_1']} answers a second, batch {args.batch}: "
        f"{result[f'per_second_{args.batch}']}, ratio {result['ratio']}; {result['equal']} of "
        f"{result['questions']} answers equal, {result['different']} of them different"
    )
    if result["ratio"] < args.limit:
        raise SystemExit(f"Too slow: batches of {args.batch} are to give {args.limit} times the answers.")


if __name__ == "__main__":
    main()
