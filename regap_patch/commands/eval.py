"""`regap eval`: safety and utility, from benchmarks to a report; each step can be run again by itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from regap_patch.commands.eval_labels import add_labels
from regap_patch.commands.eval_lmms import add_lmms_eval
from regap_patch.commands.eval_results import add_compare, add_report, add_score
from regap_patch.commands.eval_run import DATA_ROOT, add_asking, add_run, decoding_of, tasks_of
from regap_patch.commands.judging import add_judge, add_validate_judge
from regap_patch.commands.measuring import table
from regap_patch.errors import BenchmarkError


def add_eval(commands: Any) -> None:
    """Register the commands."""
    parser = commands.add_parser(
        "eval",
        help="safety and utility: ask, judge, score, compare and report",
        description="Safety and utility of vision-language models, with and without a picture. The order: "
        "list, check, plan, run, judge, score, compare, report.",
    )
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    _add_list(steps)
    _add_check(steps)
    _add_plan(steps)
    add_run(steps)
    add_judge(steps)
    add_score(steps)
    add_compare(steps)
    add_report(steps)
    add_validate_judge(steps)
    add_labels(steps)
    add_lmms_eval(steps)


def _add_list(steps: Any) -> None:
    parser = steps.add_parser("list", help="benchmarks and whether they are here, profiles, judges")
    parser.add_argument(
        "--data_root", type=Path, default=DATA_ROOT, help="holds a folder for each benchmark (%(default)s)"
    )
    parser.set_defaults(run=_list)


def _list(arguments: argparse.Namespace) -> int:
    from regap_patch.judges import presets
    from regap_patch.safety.benchmarks import BENCHMARKS, adapter_of
    from regap_patch.safety.profiles import PROFILES

    rows = []
    for name in BENCHMARKS:
        known = adapter_of(name).BENCHMARK
        here = "yes" if (arguments.data_root / name).is_dir() else "no"
        pictures = "pictures" if known.images else "text"
        rows.append([name, known.title, known.kind, pictures, known.licence, here])
    print(table(["benchmark", "title", "kind", "of", "licence", f"in {arguments.data_root}"], rows))
    print()
    for name, profile in PROFILES.items():
        parts = ", ".join(part.benchmark for part in profile.parts)
        print(f"profile {name}: {profile.about} ({parts})")
    print()
    for name, described in presets().items():
        print(f"judge {name}: {described.source} ({described.licence})")
    return 0


def _add_check(steps: Any) -> None:
    parser = steps.add_parser("check", help="whether the data of benchmarks is here, whole, and what it is")
    parser.add_argument("--tasks", default="", help="benchmarks, commas between; name=FOLDER (all of them)")
    parser.add_argument(
        "--data_root", type=Path, default=DATA_ROOT, help="holds a folder for each benchmark (%(default)s)"
    )
    parser.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    """All are looked at before the first that is wrong ends in status 1."""
    from regap_patch.safety.benchmarks import BENCHMARKS, adapter_of

    wrong = 0
    named = [task.strip() for task in arguments.tasks.split(",") if task.strip()] or list(BENCHMARKS)
    for task in named:
        name, _, folder = task.partition("=")
        adapter = adapter_of(name)
        try:
            found = adapter.check(Path(folder) if folder else arguments.data_root / name)
        except BenchmarkError as error:
            wrong += 1
            print(f"{name}: {error}")
            continue
        counts = ", ".join(f"{count} {part}" for part, count in found.counts.items())
        print(f"{name}: {counts}; {adapter.BENCHMARK.licence}; {len(found.sha256)} files hashed")
        for note in found.notes:
            print(f"  {note}")
    return 1 if wrong else 0


def _add_plan(steps: Any) -> None:
    parser = steps.add_parser(
        "plan", help="what a run would cost, and the smallest difference that it could show; runs nothing"
    )
    add_asking(parser)
    add = parser.add_argument
    add("--gen_kwargs", default="", help="as for run: max_new_tokens bounds the cost")
    add("--judges", type=int, default=2, help="how many will judge each answer (%(default)s)")
    add("--num_shards", type=int, default=1, help="processes that share the run (%(default)s)")
    add("--like", type=Path, metavar="RUN", help="an earlier run, whose timings tell what an item takes")
    parser.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    from regap_patch.report import plan_lines, plan_run
    from regap_patch.safety.profiles import profile_of
    from regap_patch.safety.tasks import count_items

    profile = profile_of(arguments.profile) if arguments.profile else None
    plan = plan_run(
        {task.name: count_items(task) for task in tasks_of(arguments)},
        max_new_tokens=decoding_of(arguments.gen_kwargs, profile).max_new_tokens,
        judges=arguments.judges,
        num_shards=arguments.num_shards,
        previous=arguments.like,
    )
    print("\n".join(plan_lines(plan)))
    return 0
