"""`regap study`: a protocol, the runs that it asks for, and the page that says what came out."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

from regap_patch.commands.measuring import table
from regap_patch.errors import ConfigError
from regap_patch.study.store import PARTS

DESCRIPTION = """A study trains base LLMs, gives each a projector with and without ReGap, and measures what
an image does to their refusals, as a trial: a protocol says before the first result what is compared. Order:
  1. write PROTOCOL (scripts/study/protocol-v1.yaml is one) and commit it: results count from then on
  2. regap study run PROTOCOL --output_path DIR --dry-run      what there is to do, and how long it takes
  3. regap study run PROTOCOL --output_path DIR --jobs 2       hours; killed, the same line goes on
  4. regap study report PROTOCOL --output_path DIR             tables, verdicts by rule, one page"""


def add_study(commands: Any) -> None:
    """Register the commands."""
    parser = commands.add_parser(
        "study",
        help="the trial: many base LLMs with ReGap off and on, by a protocol that is fixed before",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    _add_run(steps)
    _add_report(steps)


def _add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("protocol", type=Path, metavar="PROTOCOL", help="YAML file of the protocol")
    parser.add_argument(
        "--output_path",
        type=Path,
        required=True,
        help="folder of the study: what is made, study.json, tables and page",
    )


def _add_run(steps: Any) -> None:
    parser = steps.add_parser(
        "run",
        help="make what a protocol asks for and is not there yet; the same line goes on after a kill",
        description="Make every piece that a protocol asks for: LLMs, their alignment, tower, projectors, "
        "fine-tuned models and what is measured of them. A piece lies in a folder named by a hash of its "
        "recipe, the code that makes it and what it needs: what is there is never made again, another seed "
        "is another folder, and a killed run loses only the pieces that it was at.",
    )
    _add_where(parser)
    add = parser.add_argument
    add(
        "--store_path",
        type=Path,
        help="folder of the pieces, which studies can share; the study gets a link to it (OUTPUT_PATH/store)",
    )
    add(
        "--jobs",
        type=int,
        default=0,
        help="pieces at a time, one thread each (0: two, if there are two cores)",
    )
    add("--only", choices=PARTS, help="this part and what it rests on (all three)")
    add("--llms", default="", help="these base LLMs alone: seeds, commas between (all of them)")
    add(
        "--dry-run",
        action="store_true",
        help="count what is there and what is left, estimate the time, and do nothing",
    )
    parser.set_defaults(run=_run)


def _seeds(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if not (word.isascii() and word.isdecimal()):
            raise ConfigError(f"--llms holds {word!r}: name seeds of base LLMs, like --llms 1,2.")
    return tuple(dict.fromkeys(map(int, words)))


def _jobs(asked: int) -> int:
    if asked < 0:
        raise ConfigError(f"--jobs is {asked}: at least one piece is made at a time.")
    return asked or min(2, os.cpu_count() or 1)


def _run(arguments: argparse.Namespace) -> int:
    from regap_patch.study.branches import branches
    from regap_patch.study.clone import check_clone
    from regap_patch.study.protocol import may_report_primary, read_protocol
    from regap_patch.study.study_run import Choice, choose, run_study

    protocol, jobs = read_protocol(arguments.protocol), _jobs(arguments.jobs)
    choice = Choice(arguments.only, _seeds(arguments.llms))
    check_clone()
    output = arguments.output_path.resolve()
    store = (arguments.store_path or output / "store").resolve()
    nodes = branches(protocol, store)
    print(may_report_primary(protocol)[1])
    if arguments.dry_run:
        _show_plan(choose(nodes, choice), store, jobs)
        return 0
    run_study(protocol, nodes, output, store, choice, jobs)
    print(f"{output / 'study.json'}\nNow: regap study report {arguments.protocol} --output_path {output}")
    return 0


def _show_plan(nodes: Any, store: Path, jobs: int) -> None:
    """A line for each kind of piece, and the sum."""
    from regap_patch.study.study_plan import plan_study

    plan = plan_study(nodes, store, jobs)
    rows = []
    for kind in plan.kinds:
        left = kind.pieces - kind.done
        each = f"{kind.seconds / left:.0f} s" if left else "-"
        size = "-" if kind.size is None else f"{kind.size / 1e6:.0f} MB"
        source = f"{kind.recorded} made here" if kind.recorded else "table"
        rows.append([kind.kind, str(kind.pieces), str(kind.done), each, _time(kind.seconds), size, source])
    print(table(["piece", "in all", "done", "each", "left", "room", "estimate by"], rows))
    folder = next(path for path in (store, *store.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    print(
        f"With --jobs {jobs}: about {_time(plan.seconds)} and {plan.size / 1e6:.0f} MB in {store}, where "
        f"{free / 1e6:.0f} MB are free."
    )


def _time(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d}" if hours else f"{minutes} min"


def _add_report(steps: Any) -> None:
    parser = steps.add_parser(
        "report",
        help="tables, the verdicts of the protocol's rules, and one page; whatever comes out",
        description="Read what a study has measured into outcomes.csv and training.csv, judge it by the "
        "rules of the protocol (analysis.json), and write report.html. The primary part must be whole; of "
        "the others, what is made is reported. Results that are older than the commit of the protocol or of "
        "an arm that it compares, or of which one was edited, are called exploratory.",
    )
    _add_where(parser)
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from regap_patch.study.branches import branches
    from regap_patch.study.protocol import read_protocol
    from regap_patch.study.study_report import report_study, verdicts_of
    from regap_patch.study.study_run import read_study

    protocol, output = read_protocol(arguments.protocol), arguments.output_path.resolve()
    read_study(output)
    page = report_study(protocol, branches(protocol, output / "store"), output)
    for name, verdict in verdicts_of(output):
        print(f"{name:<22} {verdict}")
    print(page)
    return 0
