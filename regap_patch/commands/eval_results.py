"""`regap eval score`, `compare` and `report`: from answers and verdicts to numbers, without a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from regap_patch.commands.known_numbers import known_lines
from regap_patch.commands.measuring import table
from regap_patch.errors import ReportError

RUN_HELP = "output folder of `regap eval run`, judged"


def add_score(steps: Any) -> None:
    """Register the command."""
    parser = steps.add_parser(
        "score",
        help="metrics.json of runs from their files alone; 3 if too many judgements are missing",
        description="All numbers of a run, from its files alone: rates with intervals and bounds, and every "
        "image mode paired with text and with words. Status 3: a cell has more than 2 % unknown judgements.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=RUN_HELP)
    parser.add_argument("--output_path", type=Path, help="file to write, for one run (metrics.json in it)")
    _add_options(parser)
    parser.set_defaults(run=_score)


def add_compare(steps: Any) -> None:
    """Register the command."""
    parser = steps.add_parser(
        "compare",
        help="two runs on the same items, item by item; other items or settings are refused",
        description="The second run minus the first, on the same items: exact McNemar, Newcombe's interval, "
        "Holm.",
    )
    parser.add_argument("first", type=Path, metavar="A", help=RUN_HELP)
    parser.add_argument("second", type=Path, metavar="B", help="another")
    parser.add_argument("--output_path", type=Path, help="JSON file to write")
    _add_options(parser)
    parser.set_defaults(run=_compare)


def add_report(steps: Any) -> None:
    """Register the command."""
    parser = steps.add_parser(
        "report",
        help="one-file HTML, CSV and a model card of one run or several",
        description="One HTML file without external requests, tables as CSV, and a model card. Several runs "
        "are set against the first.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=RUN_HELP)
    parser.add_argument(
        "--gap",
        action="append",
        default=[],
        metavar="FILE[,FILE]",
        help="results of `regap gap` or `regap mir` for a run; once for each run, in their order",
    )
    parser.add_argument(
        "--redact",
        choices=("blur", "remove", "none"),
        default="blur",
        help="what becomes of harmful answers (%(default)s)",
    )
    parser.add_argument("--output_path", type=Path, help="folder for the files (`report` in the first run)")
    _add_options(parser)
    parser.set_defaults(run=_report)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--validation", type=Path, help="what validate-judge wrote: adds rates without the judge's errors"
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.01,
        help="by which utility may fall and still count as kept (%(default)s)",
    )


def _validation(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    from regap_patch.report.json_files import read_json

    found = read_json(path, "how judges fare against people")
    # A judge's eye for refusals says nothing of its eye for harm.
    return {judge: one for judge, one in found.items() if one.get("finding", "unsafe") == "unsafe"}


def _score(arguments: argparse.Namespace) -> int:
    from regap_patch.report import exit_code, score_run
    from regap_patch.report.paired_tables import tax_table
    from regap_patch.report.tables import rates_table, utility_table

    if arguments.output_path and len(arguments.runs) > 1:
        raise ReportError(
            f"{len(arguments.runs)} runs were to be written to {arguments.output_path}: leave --output_path "
            f"out."
        )
    validation = _validation(arguments.validation)
    every = [
        score_run(
            run,
            validation=validation,
            margin=arguments.margin,
            output_path=arguments.output_path,
        )
        for run in arguments.runs
    ]
    for made in (rates_table(every), utility_table(every), tax_table(every)):
        _show(made)
    for run in arguments.runs:
        for line in known_lines(run):
            print(line)
    for metrics in every:
        for note in metrics["notes"]:
            print(f"{metrics['name']}: {note}")
    return max(map(exit_code, every))


def _compare(arguments: argparse.Namespace) -> int:
    from regap_patch.report import compare_runs, exit_code
    from regap_patch.report.metrics import metrics_of
    from regap_patch.report.paired_tables import comparison_table, tax_change_table
    from regap_patch.report.run_folder import read_evaluation

    found = compare_runs(
        arguments.first, arguments.second, margin=arguments.margin, output_path=arguments.output_path
    )
    every = [metrics_of(read_evaluation(run)) for run in (arguments.first, arguments.second)]
    _show(comparison_table(every, [found]))
    _show(tax_change_table(every, [found]))
    return max([*map(exit_code, every), 3 if found["incomplete"] else 0])


def _report(arguments: argparse.Namespace) -> int:
    from regap_patch.report import write_report

    written = write_report(
        arguments.runs,
        gaps=[[Path(name) for name in given.split(",") if name] for given in arguments.gap],
        redaction=arguments.redact,
        validation=_validation(arguments.validation),
        margin=arguments.margin,
        output_path=arguments.output_path,
    )
    for path in written:
        print(path)
    return 0


def _show(made: Any) -> None:
    """A table of the report on a terminal, without the columns that say nothing; none without rows."""
    kept = [column for column in range(len(made.head)) if any(row[column] != "-" for row in made.rows)]
    if made.rows:
        rows = [[row[column] for column in kept] for row in made.rows]
        print(f"{made.title}\n{table([made.head[column] for column in kept], rows)}\n")
