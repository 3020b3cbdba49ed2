"""A tiny LLaVA from nothing, trained with ReGap off and on by the code that a cluster runs."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from regap_patch.errors import ReportError

from .clone import SCRIPTS, check_clone, module
from .jobs import Board, Job, code_digest
from .outcome import ARMS, collect, plot, table


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything. The defaults teach enough to answer questions about pictures."""

    pretrain_samples: int = 6400
    finetune_samples: int = 4800
    questions: int = 420
    llama_steps: int = 1100
    tower_steps: int = 700
    pretrain_batch: int = 32
    finetune_batch: int = 16


SIZES = {
    "default": Size(),
    "smoke": Size(
        pretrain_samples=256,
        finetune_samples=64,
        questions=14,
        llama_steps=20,
        tower_steps=20,
        pretrain_batch=8,
    ),
}


def _shared_jobs(root: Path, size: Size, seed: int) -> list[Job]:
    """World, tokenizer, language model and tower."""
    world, tokenizer = root / "world", root / "tokenizer"
    make_world = module(
        *("world", "--output_path", world, "--num_pretrain", size.pretrain_samples),
        *("--num_finetune", size.finetune_samples, "--num_questions", size.questions, "--seed", seed),
    )
    make_tokenizer = module("tokens", "--corpus", world / "corpus.txt", "--output_path", tokenizer)
    make_llama = module(
        *(
            "pretraining",
            "llama",
            "--output_path",
            root / "llama",
            "--steps",
            size.llama_steps,
            "--seed",
            seed,
        ),
        *("--tokenizer_path", tokenizer, "--corpus", world / "corpus.txt"),
    )
    make_tower = module(
        *("pretraining", "clip", "--output_path", root / "tower", "--steps", size.tower_steps, "--seed", seed)
    )
    return [
        Job("world", make_world, world),
        Job("tokenizer", make_tokenizer, tokenizer, needs=("world",)),
        Job("language model", make_llama, root / "llama", needs=("tokenizer",), steps=size.llama_steps),
        Job("vision tower", make_tower, root / "tower", steps=size.tower_steps),
    ]


def _arm_jobs(root: Path, size: Size, seed: int, arm: str) -> list[Job]:
    """Both stages and the answers, for one setting of the regulariser."""
    jobs = []
    need: tuple[str, ...] = ("language model", "vision tower")
    for stage, samples, batch in (
        ("pretrain", size.pretrain_samples, size.pretrain_batch),
        ("finetune", size.finetune_samples, size.finetune_batch),
    ):
        knobs = {
            "RUNS": str(root),
            "REGAP": arm,
            "BATCH_SIZE": str(batch),
            "SEED": str(seed),
            "PYTHON": sys.executable,
        }
        command = ("bash", str(SCRIPTS / f"{stage}.sh"))
        output = root / f"llava-{stage}-{arm}"
        steps = math.ceil(samples / batch)
        jobs.append(Job(f"{stage} {arm}", command, output, needs=need, environment=knobs, steps=steps))
        need = (f"{stage} {arm}",)
    answers = root / f"answers-{arm}.jsonl"
    ask = module(
        *(
            "answers",
            "--model_path",
            root / f"llava-finetune-{arm}",
            "--questions",
            root / "world" / "questions.jsonl",
        ),
        *("--image_folder", root / "world" / "images", "--output_path", answers),
    )
    return [*jobs, Job(f"answers {arm}", ask, answers, needs=need)]


def _code() -> str:
    """Hash of the code that a step may run."""
    llava = Path(str(import_module("llava").__file__)).parent
    ours = Path(__file__).parents[1]
    return code_digest([llava, ours, SCRIPTS.parent])


def run_quickstart(
    output_path: str | Path, *, size: str = "default", seed: int = 0, parallel: int | None = None
) -> Path:
    """Run everything that is not done yet, print the table, and return the path of the results.

    Args:
        output_path: folder for all of it; a later run there reuses steps whose settings and code are equal.
        size: a key of `SIZES`.
        seed: of the world, the models and the training runs.
        parallel: steps at a time, one thread each; None: two, if there are two cores.

    Raises:
        StudyError: something is not installed, or a step failed.
    """
    check_clone()
    began = time.monotonic()
    root = Path(
        output_path
    ).resolve()  # checkpoints name their tower by this path, and shall load from anywhere
    sizes = SIZES[size]
    jobs = [
        *_shared_jobs(root, sizes, seed),
        *(job for arm in ARMS for job in _arm_jobs(root, sizes, seed, arm)),
    ]
    board = Board(root, jobs, _code())
    board.run(parallel or min(2, os.cpu_count() or 1))
    results = collect(root, board.seconds()) | {"size": asdict(sizes), "seed": seed}
    path = root / "results.json"
    path.write_text(json.dumps(results, indent=1))
    print(f"\n{table(results)}\nseconds in all: {time.monotonic() - began:.0f}\n")
    print("One seed of a miniature: it shows that the parts work together, and nothing about safety.")
    picture = root / "quickstart.png"
    try:
        plot(root, picture)
    except ReportError as error:
        print(f"No plot: {error}")
    else:
        print(f"plot:        {output_path}/{picture.name}")
    print(f"results:     {output_path}/{path.name}")
    for arm in ARMS:
        print(f"checkpoint:  {output_path}/llava-finetune-{arm}")
    return path
