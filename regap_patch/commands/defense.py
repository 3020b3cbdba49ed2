"""`regap defense`: which defences there are, and fits of those that need one."""

from __future__ import annotations

import argparse
from typing import Any

from regap_patch.commands.defense_fit import add_fit


def add_defense(commands: Any) -> None:
    """Register the commands."""
    parser = commands.add_parser(
        "defense",
        help="defences at inference: list them, fit those that need it",
        description="Defences at inference. `regap eval run --defense NAME+NAME` puts them around a model.",
    )
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    _add_list(steps)
    add_fit(steps)


def _add_list(steps: Any) -> None:
    parser = steps.add_parser("list", help="names, settings, and what an answer costs")
    parser.set_defaults(run=_list)


def _list(arguments: argparse.Namespace) -> int:
    del arguments
    import dataclasses

    from regap_patch.commands.measuring import table
    from regap_patch.defenses.table import defense_names, find_defense

    rows = []
    for name in defense_names():
        kind: Any = find_defense(name)
        settings = [field.name for field in dataclasses.fields(kind) if field.init]
        rows.append([name, kind.level, ", ".join(settings) or "-", kind.cost, kind.source])
    print(table(["name", "level", "settings", "cost of an answer", "source"], rows))
    return 0
