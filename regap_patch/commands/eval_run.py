"""`regap eval run`: from flags to a target, tasks and settings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regap_patch.commands.eval_defense import (
    add_defense,
    defended,
    stack_of,
    without_fitted,
    write_latency,
)
from regap_patch.commands.eval_target import ENDPOINT_ARGS, KINDS, LOCAL_ARGS, pairs, target_of
from regap_patch.errors import ConfigError

if TYPE_CHECKING:
    from regap_patch.safety.profiles import Profile

GEN_KWARGS = {"max_new_tokens": int, "max_gen_toks": int, "temperature": float, "top_p": float}
DATA_ROOT = Path("playground/data/safety")
EXIT_INCOMPLETE = 3


def add_run(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "run",
        help="ask a model all items of benchmarks in some image modes; the same line goes on after a kill",
        description="Ask a model all items of some benchmarks in some image modes. Answers lie in fixed "
        "blocks of --batch_size items: the same line goes on after a kill, and any number of shards gives "
        "the same answers. When the shards are done, the line without --shard says what is missing.",
    )
    add = parser.add_argument
    add(
        "--model",
        metavar="KIND_OR_PATH",
        help=f"{', '.join(KINDS)} with --model_args, or a checkpoint's folder or hub name",
    )
    add(
        "--model_args",
        default="",
        help=f"name=value, commas between; of a checkpoint: {', '.join(LOCAL_ARGS)}; "
        f"of an endpoint: {', '.join(ENDPOINT_ARGS)}",
    )
    add("--conv_mode", help="LLaVA: conversation template (vicuna_v1); else text with {text} and <image>")
    add("--device", help="where the model runs (a GPU, if there is one)")
    add("--dtype", choices=("float32", "float16", "bfloat16"), help="float32 on the CPU, else float16")
    add_asking(parser)
    add("--output_path", type=Path, required=True, help="folder of the run; a folder is one run")
    add("--batch_size", type=int, help="questions at once, and the size of the blocks (the profile's, or 1)")
    add("--seed", type=int, default=0, help="of sampling, noise and choices (%(default)s)")
    add(
        "--gen_kwargs",
        default="",
        help=f"name=value, commas between: {', '.join(GEN_KWARGS)} (greedy, 512 new tokens)",
    )
    add("--num_shards", type=int, default=1, help="processes that share the run (%(default)s)")
    add("--shard", type=int, help="which of them this one is, from 0; needed with --num_shards")
    add_defense(parser)
    add("--no_parity", action="store_true", help="do not compare batch 1 with --batch_size on 32 items first")
    add("--offline", action="store_true", help="no network: neither hubs nor other machines are asked")
    parser.set_defaults(run=_run)


def add_asking(parser: argparse.ArgumentParser) -> None:
    """Flags that say what is asked."""
    add = parser.add_argument
    add("--profile", help="a choice of benchmarks and settings: `regap eval list` shows them")
    add("--tasks", default="", help="benchmarks, commas between; name=FOLDER says where the data of one lies")
    add("--data_root", type=Path, default=DATA_ROOT, help="holds a folder for each benchmark (%(default)s)")
    add(
        "--image_mode",
        default="",
        help="what stands in the picture's place, commas between: none, words, blank, black, grey, noise, "
        "irrelevant, real (the profile's, or as the data is)",
    )
    add("--irrelevant_images", type=Path, help="folder of pictures for mode irrelevant (other items')")
    add("--split", help="of every benchmark (its default)")
    add("--limit", type=int, help="the first so many items of each benchmark")


def tasks_of(arguments: argparse.Namespace) -> list[Any]:
    """The `safety.tasks.Task` of these flags, those of the profile unless --tasks names others.

    Raises:
        ConfigError: nothing is asked, or in an unknown image mode.
        BenchmarkError: there is no such benchmark.
    """
    from regap_patch.safety.benchmarks import adapter_of
    from regap_patch.safety.profiles import Part, profile_of
    from regap_patch.safety.tasks import Task

    parts = {}
    if arguments.profile:
        parts = {part.benchmark: part for part in profile_of(arguments.profile).parts}
    named = dict(_named(task) for task in arguments.tasks.split(",") if task.strip())
    wanted = named or dict.fromkeys(parts)
    if not wanted:
        raise ConfigError(
            "Nothing is asked: name benchmarks with --tasks, or a choice of them with --profile."
        )
    if arguments.limit is not None and arguments.limit < 1:
        raise ConfigError(f"--limit is {arguments.limit}: at least one item is asked.")
    modes = _image_modes(arguments.image_mode)
    made = []
    for name, folder in wanted.items():
        part, adapter = parts.get(name, Part(name)), adapter_of(name)
        # Benchmarks without pictures have no real one: beside other modes that is no fault.
        possible = tuple(mode for mode in modes if mode != "real" or adapter.BENCHMARK.images) or modes
        made.append(
            Task(
                adapter,
                folder or arguments.data_root / name,
                possible or part.image_modes,
                arguments.split or part.split,
                part.limit if arguments.limit is None else arguments.limit,
                arguments.irrelevant_images,
            )
        )
    return made


def _named(task: str) -> tuple[str, Path | None]:
    name, _, folder = task.strip().partition("=")
    return name, Path(folder) if folder else None


def _image_modes(text: str) -> tuple[Any, ...]:
    from regap_patch.records import IMAGE_MODES

    modes = tuple(dict.fromkeys(mode.strip() for mode in text.split(",") if mode.strip()))
    unknown = [mode for mode in modes if mode not in IMAGE_MODES]
    if unknown:
        raise ConfigError(
            f"The image mode {unknown[0]!r} was asked for, but there are {', '.join(IMAGE_MODES)}."
        )
    return modes


def decoding_of(text: str, profile: Profile | None) -> Any:
    """The `safety.target.Decoding` of `--gen_kwargs`.

    Raises:
        ConfigError: a name or a number that means nothing.
    """
    from regap_patch.safety.target import Decoding

    given: dict[str, Any] = {} if profile is None else {"max_new_tokens": profile.max_new_tokens}
    for name, value in pairs(text, "--gen_kwargs", GEN_KWARGS).items():
        try:
            number = GEN_KWARGS[name](value)
        except ValueError:
            raise ConfigError(f"--gen_kwargs holds {name}={value}, which is no number.") from None
        given["max_new_tokens" if name == "max_gen_toks" else name] = number
    return Decoding(**given)


def go_offline(offline: bool) -> None:
    """Nothing is fetched from a hub by this process."""
    if offline:
        import os

        os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"


def _run(arguments: argparse.Namespace) -> int:
    if arguments.num_shards > 1 and arguments.shard is None:
        raise ConfigError(
            f"--num_shards {arguments.num_shards} was given without --shard: say which of 0 to "
            f"{arguments.num_shards - 1} this process is."
        )
    go_offline(arguments.offline)
    from regap_patch.commands.measuring import Bars
    from regap_patch.report.defense_trace import defense_sentences, read_defense_trace
    from regap_patch.safety.blocks import Shard
    from regap_patch.safety.manifest import Settings
    from regap_patch.safety.parity import parity_sentence
    from regap_patch.safety.profiles import profile_of
    from regap_patch.safety.run import run_evaluation

    stack = stack_of(arguments)
    profile = profile_of(arguments.profile) if arguments.profile else None
    settings = Settings(
        decoding_of(arguments.gen_kwargs, profile),
        (profile.batch_size if profile else 1) if arguments.batch_size is None else arguments.batch_size,
        arguments.seed,
        stack.name if stack else "",
        arguments.profile or "",
    )
    tasks = tasks_of(arguments)
    target, reference, name = target_of(arguments)
    latency = None
    if stack is not None:
        tasks = without_fitted(tasks, stack)
        target, reference, latency = defended(arguments, stack, target, reference)
    summary = run_evaluation(
        target,
        tasks,
        arguments.output_path,
        settings,
        shard=Shard(arguments.shard or 0, arguments.num_shards),
        reference=reference,
        started={"model": name, "hardware": getattr(target, "hardware", "the server's")},
        progress=Bars(),
    )
    if latency is not None:
        write_latency(latency, summary.folder, arguments.shard or 0)
    if summary.parity is not None:
        print(parity_sentence(summary.parity))
    for sentence in defense_sentences(read_defense_trace(summary.folder)) if stack else ():
        print(sentence)
    print(_sentence(summary))
    print(summary.folder)
    return EXIT_INCOMPLETE if summary.errors else 0


def _sentence(summary: Any) -> str:
    words = [f"{summary.answered} of {summary.items} items answered now", f"{summary.found} found answered"]
    if summary.errors:
        words.append(f"{summary.errors} failed (the same line asks them again)")
    if summary.missing > summary.errors:
        words.append(f"{summary.missing - summary.errors} missing (other shards, or the same line)")
    if summary.left_out:
        words.append(f"{summary.left_out} left out, for the defences were fitted on them")
    if summary.truncated:
        words.append(f"{summary.truncated} cut at max_new_tokens")
    return ", ".join(words) + "."
