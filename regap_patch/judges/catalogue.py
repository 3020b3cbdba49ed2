"""The data files that describe judges: where each comes from, under which licence, and its known faults."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from regap_patch.errors import JudgeError

_REQUIRED = ("name", "kind", "source", "licence", "measure", "headline", "faults", "settings")


@dataclass(frozen=True, slots=True)
class Preset:
    """One judge, described.

    Attributes:
        name: how commands and folders call it; `-own` at its end: the wording is ours, nobody published it.
        kind: which code reads `settings`; a key of `make.KINDS`.
        source: paper, repository or weights.
        licence: of weights or list.
        measure: what the share of "unsafe" under this judge is to be called.
        headline: whether that share may stand as a result; keyword lists never.
        faults: what is known to go wrong.
        settings: of that kind.
    """

    name: str
    kind: str
    source: str
    licence: str
    measure: str
    headline: bool
    faults: tuple[str, ...]
    settings: Mapping[str, Any]


@cache
def presets() -> Mapping[str, Preset]:
    """All that ship, by name."""
    found: dict[str, Preset] = {}
    for file in resources.files("regap_patch.judges").joinpath("presets").iterdir():
        if not file.name.endswith(".json"):
            continue
        for described in json.loads(file.read_text(encoding="utf-8")):
            missing = [name for name in _REQUIRED if name not in described]
            if missing or described["name"] in found:
                fault = f"lacks {', '.join(missing)}" if missing else "is there twice"
                raise JudgeError(f"The preset {described.get('name')} of {file.name} {fault}: mend the file.")
            found[described["name"]] = Preset(**described | {"faults": tuple(described["faults"])})
    return dict(sorted(found.items()))


def preset(name: str) -> Preset:
    """The one of that name.

    Raises:
        JudgeError: there is none.
    """
    known = presets()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise JudgeError(f"There is no judge {name!r}: {hint}known are {', '.join(known)}.")
    return known[name]
