"""A world that can refuse, whole: benchmark, language models, tower, and two projectors (ReGap off and on).

`python -m regap_patch.study.refusal_world --output_path FOLDER --size smoke`
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path

from regap_patch.errors import StudyError

from .clone import SCRIPTS, check_clone, module
from .jobs import Board, Job, code_digest
from .refusal_models import Models, ModelSize, cache_folder, make_models

MANIFEST = "refusal_world.json"
ARMS = ("off", "on")
ROOMS = ("gap", "hosts", "patch", "train", "study")  # what trains projectors and writes benchmarks
LINKS = ("base", "aligned", "tower")  # in the folder, to the cache


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything.

    Attributes:
        models: of the things, the text and the language models.
        phrasings: in which the benchmark asks about each thing.
        questions: of the benchmark about pictures.
        pictures: with a caption, for stage 1.
        batch: samples of a step of stage 1.
    """

    models: ModelSize = field(default_factory=ModelSize)
    phrasings: int = 3
    questions: int = 210
    pictures: int = 6400
    batch: int = 32


SIZES = {
    "default": Size(),
    "smoke": Size(
        models=ModelSize(
            forbidden=48,
            benign=28,
            twins=16,
            base_documents=16000,
            vocabulary=1024,
            base_steps=700,
            alignment_steps=150,
            tower_steps=300,
        ),
        phrasings=1,
        questions=28,
        pictures=1600,
        batch=16,
    ),
}


def _code() -> str:
    """Hash of the code that a step may run: llava, the scripts, and our `ROOMS`."""
    llava = Path(str(import_module("llava").__file__)).parent
    return code_digest([llava, *(Path(__file__).parents[1] / room for room in ROOMS), SCRIPTS.parent])


def _data_jobs(root: Path, size: Size, models: Models, seed: int) -> list[Job]:
    pictures, benchmark = root / "pictures", root / "world"
    make_pictures = module(
        *("world", "--output_path", pictures, "--num_pretrain", size.pictures, "--num_finetune", 0),
        *("--num_questions", 0, "--seed", seed, "--hold_out_evaluation"),
    )
    make_benchmark = module(
        *("refusal_benchmark", "--items", models.items, "--output_path", benchmark, "--seed", seed),
        *("--phrasings", size.phrasings, "--questions", size.questions),
    )
    return [Job("pictures", make_pictures, pictures), Job("benchmark", make_benchmark, benchmark)]


def _text_job(root: Path, name: str, model: Path) -> Job:
    """The requests in bare text, without any picture in the model's life."""
    output = root / f"text-{name}.json"
    requests = root / "world" / "requests.jsonl"
    ask = module("replies", "--model_path", model, "--requests", requests, "--output_path", output)
    return Job(f"text {name}", ask, output, needs=("benchmark",))


def _projector_job(root: Path, size: Size, models: Models, seed: int, arm: str) -> Job:
    output = root / f"llava-pretrain-{arm}"
    knobs = {
        "RUNS": str(root),
        "REGAP": arm,
        "MODEL": str(models.aligned),
        "VISION_TOWER": str(models.tower),
        "DATA": str(root / "pictures" / "pretrain.json"),
        "IMAGES": str(root / "pictures" / "images"),
        "OUTPUT_DIR": str(output),
        "BATCH_SIZE": str(size.batch),
        "SEED": str(seed),
        "PYTHON": sys.executable,
    }
    command = ("bash", str(SCRIPTS / "pretrain.sh"))
    steps = math.ceil(size.pictures / size.batch)
    return Job(f"projector {arm}", command, output, needs=("pictures",), environment=knobs, steps=steps)


def make_refusal_world(
    output_path: str | Path,
    *,
    size: str = "default",
    seed: int = 0,
    cache_path: str | Path | None = None,
    parallel: int | None = None,
) -> Path:
    """Make everything that is not made yet, and print how the language models answer in bare text.

    Args:
        output_path: folder for benchmark and projectors; a later run there reuses what is unchanged.
        size: a key of `SIZES`.
        seed: of things, text, models and training runs.
        cache_path: folder for language models and tower; None for the user's cache.
        parallel: steps at a time, one thread each; None: two, if there are two cores.

    Returns:
        Path of `refusal_world.json`, which names everything.

    Raises:
        StudyError: something is not installed, the folder holds something else, a step failed, or another
            process is at work in the cache.
    """
    check_clone()
    if size not in SIZES:
        raise StudyError(f"A world of the size {size!r} was asked for, but there are {', '.join(SIZES)}.")
    root, sizes = Path(output_path).resolve(), SIZES[size]
    at_once = parallel or min(2, os.cpu_count() or 1)
    if root.is_dir() and any(root.iterdir()) and not all((root / name).is_symlink() for name in LINKS):
        raise StudyError(
            f"A world that can refuse was to be made in {root}, but something else lies there: name a folder "
            "that is new or empty."
        )
    models = make_models(sizes.models, seed, Path(cache_path or cache_folder()).resolve(), at_once)
    root.mkdir(parents=True, exist_ok=True)
    for name in LINKS:
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(getattr(models, name), target_is_directory=True)
    jobs = [
        *_data_jobs(root, sizes, models, seed),
        *(_text_job(root, name, getattr(models, name)) for name in ("base", "aligned")),
        *(_projector_job(root, sizes, models, seed, arm) for arm in ARMS),
    ]
    board = Board(root, jobs, _code())
    board.run(at_once)
    text = {name: json.loads((root / f"text-{name}.json").read_text()) for name in ("base", "aligned")}
    projectors = {arm: str(root / f"llava-pretrain-{arm}") for arm in ARMS}
    facts = {"size": asdict(sizes), "seed": seed, "models": models.paths(), "projectors": projectors}
    path = root / MANIFEST
    path.write_text(json.dumps(facts | {"text": text, "seconds": board.seconds()}, indent=1))
    for name, scenarios in text.items():
        print(f"\n{name} language model, bare text, all splits")
        for scenario, row in scenarios.items():
            shares = f"helped {row['helped']:.2f}  refused {row['refused']:.2f}"
            print(f"  {scenario:<32} n {row['n']:>4}  {shares}")
    print(f"\nNow ask, for ARM in {' and '.join(ARMS)}:")
    print(
        f"  regap eval run --profile smoke --data_root {output_path} --output_path RUN-ARM --model llava "
        f"--model_args pretrained={output_path}/llava-pretrain-ARM,base={output_path}/aligned"
    )
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a world that can refuse and two projectors in it.")
    parser.add_argument("--output_path", type=Path, required=True, help="folder for benchmark and projectors")
    parser.add_argument("--size", choices=sorted(SIZES), default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache_path", type=Path, help="for models that other runs can reuse (the user's)")
    parser.add_argument("--parallel", type=int, help="steps at a time (2, if there are two cores)")
    try:
        make_refusal_world(**vars(parser.parse_args()))
    except StudyError as error:
        sys.exit(str(error))
