"""`regap eval labels`: a sheet of answers for people to label, and what the filled one says of the judges."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from regap_patch.commands.measuring import table
from regap_patch.report.formats import number


def add_labels(steps: Any) -> None:
    """Register the command."""
    parser = steps.add_parser(
        "labels",
        help="a sheet for people to label, or with --filled how the judges fare against them",
        description="Without --filled a CSV is drawn, half of it where judges disagree; it hides judges, "
        "model and image mode. With --filled the sheets are checked, and each judge's kappa, sensitivity and "
        "specificity are written as `regap eval score --validation` takes them.",
    )
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="output folder of `regap eval run`, judged"
    )
    parser.add_argument("--output_path", type=Path, required=True, help="sheet (CSV), or result (JSON)")
    parser.add_argument(
        "--filled", type=Path, nargs="+", metavar="SHEET", help="filled sheets, one for each annotator"
    )
    parser.add_argument("--size", type=int, default=100, help="rows of the sheet (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (%(default)s)")
    parser.set_defaults(run=_labels)


def _labels(arguments: argparse.Namespace) -> int:
    from regap_patch.report import validate_judges, write_sheet

    if not arguments.filled:
        drawn = write_sheet(
            arguments.run_folder, arguments.output_path, size=arguments.size, seed=arguments.seed
        )
        words = ", ".join(f"{count} {stratum}" for stratum, count in drawn.items())
        print(
            f"{arguments.output_path}: {words}; write safe or unsafe into `label`, your name into `annotator`"
        )
        return 0
    found = validate_judges(arguments.filled, arguments.run_folder, arguments.output_path)
    rows = [
        [
            judge,
            str(row["items"]),
            *(number(hit / of if of else None) for hit, of in (row["sensitivity"], row["specificity"])),
            number(row["kappa"]),
            str(row["unscored"]),
        ]
        for judge, row in found.items()
    ]
    print(table(["judge", "labelled", "sensitivity", "specificity", "kappa", "unscored"], rows))
    people = next(iter(found.values()))["people"]
    if people is not None:
        both = " and ".join(people["annotators"])
        print(f"{both} agree with kappa {number(people['kappa'])} on {people['n']} answers")
    return 0
