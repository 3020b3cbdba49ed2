"""The defences that there are: ours, then what other distributions registered; and how a stack is made."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from types import SimpleNamespace, UnionType
from typing import Any

from regap_patch.defenses.protocol import Defense
from regap_patch.defenses.stack import Stack, each_once
from regap_patch.errors import ConfigError

DEFENSES = {
    "adashield_s": "adashield:AdaShieldS",
    "self_reminder": "self_reminder:SelfReminder",
    "ecso": "ecso:Ecso",
    "cmrm": "cmrm:Cmrm",
    "vlm_guard": "vlm_guard:VlmGuard",
    "coca": "coca:Coca",
}
# Another distribution adds one by `[project.entry-points."regap_patch.defenses"] mine =
# "package.module:Mine"`.
ENTRY_POINTS = "regap_patch.defenses"


def defense_names() -> list[str]:
    """All names, ours first."""
    return [*DEFENSES, *sorted(point.name for point in entry_points(group=ENTRY_POINTS))]


def find_defense(name: str) -> type[Defense]:
    """The class of this name.

    Raises:
        ConfigError: there is none.
    """
    if name in DEFENSES:
        module, _, kind = DEFENSES[name].partition(":")
        found: type[Defense] = getattr(import_module(f"regap_patch.defenses.{module}"), kind)
        return found
    for point in entry_points(group=ENTRY_POINTS, name=name):
        loaded: type[Defense] = point.load()
        return loaded
    near = get_close_matches(name, defense_names(), 1)
    hint = f"did you mean {near[0]}, or" if near else "choose from"
    raise ConfigError(
        f"The defence {name!r} was asked for, but there is none of that name: {hint} one of "
        f"{', '.join(defense_names())}?"
    )


def make_stack(names: str, settings: Mapping[str, str] | None = None) -> Stack:
    """A stack by its names and the settings of its defences.

    Args:
        names: joined by "+".
        settings: `name.field` -> text.

    Raises:
        ConfigError: an unknown name, field or value, one named twice, or two that cannot stand together.
    """
    wanted = [name.strip() for name in names.split("+")]
    if not all(wanted):
        raise ConfigError(f"The defence stack {names!r} has an empty name: write names with + between.")
    each_once(wanted)
    kinds = {name: find_defense(name) for name in wanted}
    of: dict[str, dict[str, str]] = {name: {} for name in wanted}
    for key, value in (settings or {}).items():
        name, dot, field = key.partition(".")
        if not dot or name not in of:
            raise ConfigError(
                f"The setting {key!r} is of no defence of the stack {names!r}: write NAME.SETTING with one "
                f"of its names."
            )
        of[name][field] = value
    return Stack([_made(name, kinds[name], of[name]) for name in wanted])


def _made(name: str, kind: Any, given: Mapping[str, str]) -> Defense:
    types = {field.name: field.type for field in dataclasses.fields(kind) if field.init}
    unknown = [field for field in given if field not in types]
    if unknown:
        near = get_close_matches(unknown[0], types, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(
            f"The defence {name} was given {unknown[0]}={given[unknown[0]]}{hint}, but it has "
            f"{', '.join(types) or 'no settings'}: correct the name."
        )
    missing = [
        field.name for field in dataclasses.fields(kind) if _required(field) and field.name not in given
    ]
    if missing:
        raise ConfigError(
            f"The defence {name} needs {missing[0]}: give --defense_args {name}.{missing[0]}=VALUE."
        )
    defense: Defense = kind(
        **{field: _value(name, field, text, _meant(kind, types[field])) for field, text in given.items()}
    )
    return defense


def _required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.init and field.default is missing and field.default_factory is missing


def _meant(kind: Any, written: Any) -> Any:
    """The type that a field's annotation names in its class's module."""
    if not isinstance(written, str):
        return written
    holder = SimpleNamespace(__annotations__={"field": written})
    return typing.get_type_hints(holder, vars(sys.modules[kind.__module__]))["field"]


def _value(name: str, field: str, text: str, kind: Any) -> Any:
    """A setting's text as what its dataclass says: str, int, float, bool, Path or a Literal, or None."""
    if typing.get_origin(kind) in (typing.Union, UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    words = {"true": True, "1": True, "false": False, "0": False}
    try:
        if choices:
            return {str(choice): choice for choice in choices}[text]
        return words[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        expected = f"one of {', '.join(map(str, choices))}" if choices else f"a {kind.__name__}"
        raise ConfigError(
            f"The defence {name} was given {field}={text}, but {expected} is expected."
        ) from None
