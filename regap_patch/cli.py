"""`regap`: the commands. Each imports what it needs when it runs, so that help costs nothing."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from regap_patch.commands.defense import add_defense
from regap_patch.commands.demo import add_demo
from regap_patch.commands.eval import add_eval
from regap_patch.commands.gap import add_gap
from regap_patch.commands.mir import add_mir
from regap_patch.commands.study import add_study
from regap_patch.errors import ReGapError, ReportError
from regap_patch.version import __version__


def _quickstart(arguments: argparse.Namespace) -> int:
    from regap_patch.study.quickstart import run_quickstart

    run_quickstart(
        arguments.output_path, size=arguments.size, seed=arguments.seed, parallel=arguments.parallel or None
    )
    return 0


def _plot(arguments: argparse.Namespace) -> int:
    from regap_patch.report.mir_files import is_mir_file, read_mir_files

    measured = [path for path in arguments.runs if is_mir_file(path)]
    if measured and len(measured) < len(arguments.runs):
        raise ReportError(
            f"{len(measured)} of the {len(arguments.runs)} paths are results of `regap mir` and the others "
            f"are training runs, but one figure shows one kind: plot them apart."
        )
    if measured:
        from regap_patch.report.mir_plots import plot_mir

        print(plot_mir(read_mir_files(measured), arguments.output_path))
        return 0
    from regap_patch.report.plots import plot_runs
    from regap_patch.report.runs import read_runs

    print(plot_runs(read_runs(arguments.runs), arguments.output_path))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    """Print what is installed; 1 if something that everybody needs is not."""
    del arguments
    from regap_patch.study.environment import CORE, missing, versions

    found = versions()
    for name, version in found.items():
        print(f"{name:<14} {version or '-'}")
    print(f"{'device':<14} {_device() if found['torch'] else '-'}")
    for piece in missing():
        print(f"not here: {piece.name} ({piece.what_for}): {piece.remedy}")
    absent = [name for name in CORE if found[name] is None]
    if absent:
        print(f"needed by `llava` and not here: {', '.join(absent)}: pip install .", file=sys.stderr)
    return 1 if absent else 0


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"cpu, {torch.get_num_threads()} threads"
    names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
    return f"{torch.cuda.device_count()} x {', '.join(sorted(names))}"


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="regap",
        description="Shrink, and measure, the modality gap of LLaVA-style models (ReGap, arXiv 2505.24208). "
        "To train with it, put `-m regap_patch.run` before your training script.",
    )
    parser.add_argument("--version", action="version", version=f"regap {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    quickstart = commands.add_parser(
        "quickstart",
        help="first page of the study: a tiny LLM that can refuse, with ReGap off and on, in minutes",
    )
    quickstart.add_argument(
        "--output_path",
        type=Path,
        default=Path("playground/runs/quickstart"),
        help="folder for all of it; what was made there from the same is not made again (%(default)s)",
    )
    quickstart.add_argument(
        "--size",
        choices=("default", "smoke"),
        default="default",
        help="smoke: a minute, to check the pipes; teaches nothing, so that what is asserted may fail",
    )
    quickstart.add_argument("--seed", type=int, default=0, help="of the language model (%(default)s)")
    quickstart.add_argument(
        "--parallel",
        type=int,
        default=0,
        help="pieces at a time, one thread each (0: two, if there are two cores)",
    )
    quickstart.set_defaults(run=_quickstart)

    add_gap(commands)
    add_mir(commands)
    add_eval(commands)
    add_study(commands)
    add_defense(commands)
    add_demo(commands)

    plot = commands.add_parser(
        "plot", help="training runs against steps, or what `regap mir` found layer by layer, in one figure"
    )
    plot.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="output folder of a training run, a checkpoint in it, a trainer_state.json, or a mir.json",
    )
    plot.add_argument(
        "--output_path",
        type=Path,
        default=Path("regap.png"),
        help="file to write; its suffix, .png or .svg, says the format (%(default)s)",
    )
    plot.set_defaults(run=_plot)

    doctor = commands.add_parser("doctor", help="what is installed here, and what is missing for which part")
    doctor.set_defaults(run=_doctor)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; what we refuse ends in one sentence and status 1."""
    arguments = build_parser().parse_args(argv)
    # A polite kill unwinds like Ctrl-C, so that no training run outlives the command that started it.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return int(arguments.run(arguments))
    except ReGapError as error:
        print(f"regap {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nregap {arguments.command}: interrupted; the same line goes on from here.", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
