"""`regap defense`: which defences there are, and fits of those that need one."""

from __future__ import annotations

import argparse
import dataclasses
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
    from regap_patch.defenses.table import defense_names, find_defense

    for name in defense_names():
        kind: Any = find_defense(name)
        settings = [f"{field.name}={_default(field)}" for field in dataclasses.fields(kind) if field.init]
        print(f"{name}, level {kind.level}, {kind.cost}")
        print(f"    settings: {', '.join(settings) or 'none'}")
        print(f"    {kind.source or 'no source named'}")
    return 0


def _default(field: Any) -> str:
    if field.default is None:
        return "FILE"
    return "(needed)" if field.default is dataclasses.MISSING else str(field.default)
