"""`--defense` and `--defense_args` of `regap eval run`: from names to a defended target."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regap_patch.errors import ConfigError

if TYPE_CHECKING:
    from regap_patch.commands.latency import Latency
    from regap_patch.defenses.stack import Stack

BETWEEN = re.compile(r",(?=[^,]*=)")  # other commas are a value's: cmrm.layers=1,4


def add_defense(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    add = parser.add_argument
    add("--defense", default="", help="names with + between; `regap defense list` shows them (none)")
    add(
        "--defense_args",
        default="",
        help="NAME.SETTING=value, commas between: adashield_s.place=after,cmrm.vectors=FOLDER",
    )
    add("--no_latency", action="store_true", help="do not ask the first batches without --defense too")


def stack_of(arguments: argparse.Namespace) -> Stack | None:
    """A stack by these flags, a new one at each call; None without --defense.

    Raises:
        ConfigError: a name or a setting that there is not, or names that cannot stand together.
    """
    if not arguments.defense:
        if arguments.defense_args:
            raise ConfigError(
                f"--defense_args {arguments.defense_args} was given without --defense: name the defences."
            )
        return None
    from regap_patch.defenses import make_stack

    return make_stack(arguments.defense, settings_of(arguments.defense_args))


def settings_of(text: str) -> dict[str, str]:
    """`NAME.SETTING=value,...` as a mapping.

    Raises:
        ConfigError: a part of another shape.
    """
    found = {}
    for part in filter(None, (part.strip(" ,") for part in BETWEEN.split(text))):
        name, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"--defense_args holds {part!r}, but NAME.SETTING=value is expected.")
        found[name] = value
    return found


def defended(
    arguments: argparse.Namespace, stack: Stack, target: Any, reference: Any
) -> tuple[Any, Any, Latency | None]:
    """The target and its reference for the parity gate with the stack around them, and where it is timed."""
    from regap_patch.commands.defended import DefendedTarget, Untimed
    from regap_patch.commands.latency import Latency
    from regap_patch.safety.folder import RunFolder

    latency = None if arguments.no_latency else Latency(stack.name)
    made = DefendedTarget(
        *(target, stack, latency),
        new=not RunFolder(arguments.output_path).manifest.exists(),
        waits=reference is not None and reference is not target,
    )
    if reference is None:
        return made, None, latency
    if reference is target:
        return made, Untimed(made), latency
    other = stack_of(arguments)
    assert other is not None
    return made, DefendedTarget(reference, other), latency


def without_fitted(tasks: Sequence[Any], stack: Stack) -> list[Any]:
    """The same tasks without items that the defences were fitted on."""
    from regap_patch.safety.fitted import Fitted

    items = [item for fitted in stack.fitted_on().values() for item in fitted]
    return [replace(task, fitted=Fitted(items)) for task in tasks] if items else list(tasks)


def write_latency(latency: Latency, folder: Path, shard: int) -> None:
    """What was timed, beside the traces; an earlier process's stays where this one timed nothing."""
    found = latency.to_dict()
    if found is None:
        return
    from regap_patch.safety.folder import RunFolder, write_whole

    write_whole(RunFolder(folder).latency(shard), json.dumps(found, indent=2, sort_keys=True) + "\n")
