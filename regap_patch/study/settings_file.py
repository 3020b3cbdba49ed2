"""YAML files of settings, read into dataclasses: every key and every value is checked, and none is guessed.

YAML 1.1 reads `off` as false and `5e-4` as text. Here only `true` and `false` are booleans, any number is a
number, and a key that stands twice is refused.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from regap_patch.errors import ConfigError

T = TypeVar("T")
_FLOAT = re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$")
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a mapping"}


def hint(name: object, known: Collection[str]) -> str:
    """The end of a sentence about an unknown name: the nearest of the known ones, and all of them."""
    near = difflib.get_close_matches(str(name), known, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"Known are {', '.join(known) or 'none'}."


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file that is a mapping.

    Raises:
        ConfigError: it is not there, no YAML, no mapping, or a key stands twice.
    """
    try:
        import yaml
    except ImportError as error:
        raise ConfigError(
            "Protocols and arms are YAML files, and pyyaml is not here: pip install pyyaml."
        ) from error
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _loader())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"The file {path} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"The file {path} holds no mapping of names to values.")
    return found


def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain values alone, each key once."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [self.construct_object(name, deep=True) for name, _ in node.value]
            twice = [name for index, name in enumerate(names) if name in names[:index]]
            if twice:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {twice[0]!r} stands twice", problem_mark=node.start_mark
                )
            return dict(super().construct_mapping(node, deep))

    Loader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if not pair[0].endswith((":bool", ":float", ":timestamp"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
    return Loader


def build(kind: type[T], found: Any, where: str, **given: Any) -> T:
    """A dataclass from a mapping, and those inside it from the mappings inside.

    Args:
        kind: whose fields may be numbers, text, booleans, `Literal`, tuples, `X | None` or dataclasses.
        found: what the file holds.
        where: for the sentence, like `alignment of protocol.yaml`.
        **given: fields that do not come from the file.

    Raises:
        ConfigError: an unknown or a missing key, or a value of another type.
    """
    if not isinstance(found, Mapping):
        raise ConfigError(f"The {where} is {found!r}, which should be a mapping of names to values.")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in given}  # type: ignore[arg-type]
    for name in found:
        if name not in fields:
            raise ConfigError(f"There is no key {name!r} in the {where}: {hint(name, fields)}")
    types_of = get_type_hints(kind)
    missing = (dataclasses.MISSING, dataclasses.MISSING)
    for name, field in fields.items():
        if name not in found and (field.default, field.default_factory) == missing:
            raise ConfigError(f"The key {name!r} is missing in the {where}.")
    values = {name: _value(types_of[name], value, f"{name} in the {where}") for name, value in found.items()}
    return kind(**given, **values)


def _value(kind: Any, found: Any, where: str) -> Any:
    """`found` as a value of an annotation."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if found is None else _value(inner[0], found, where)
    if origin is Literal:
        if found not in inner:
            raise ConfigError(f"The {where} is {found!r}: {hint(found, [str(word) for word in inner])}")
        return found
    if origin is tuple:
        return _items(inner, found, where)
    if dataclasses.is_dataclass(kind):
        return build(kind, found, where.replace(" in the ", " of the ", 1))  # type: ignore[arg-type]
    return _plain(kind, found, where)


def _plain(kind: type, found: Any, where: str) -> Any:
    if kind is float and type(found) is int:
        return float(found)
    if type(found) is not kind:
        raise ConfigError(f"The {where} is {found!r}, which should be {_WORDS[kind]}.")
    return found


def _items(inner: tuple[Any, ...], found: Any, where: str) -> tuple[Any, ...]:
    fixed = inner[-1] is not Ellipsis
    if not isinstance(found, list) or (fixed and len(found) != len(inner)):
        raise ConfigError(
            f"The {where} is {found!r}, which should be a list{f' of {len(inner)}' if fixed else ''}."
        )
    kinds = inner if fixed else (inner[0],) * len(found)
    return tuple(
        _value(kind, item, f"{where}, item {index}")
        for index, (kind, item) in enumerate(zip(kinds, found, strict=True))
    )
