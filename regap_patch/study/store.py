"""Folders of a study, each named by what it was made from: `<store>/<kind>-<first 16 digits of its key>`.

A key is a hash of the kind, its recipe, the code and the versions that make it, and the keys of what it
needs. So two branches that share a piece share its folder, and another seed is another folder. A folder
counts only with its `node.json`, which is written last and says all of that again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from regap_patch.errors import StudyError
from regap_patch.records import digest

from .environment import version_of
from .jobs import code_digest

REPOSITORY = Path(__file__).parents[2]
LIBRARIES = ("torch", "transformers", "tokenizers", "sentencepiece", "peft", "numpy", "pillow")
RECORD = "node.json"
PARTS = ("primary", "exploratory", "pilot")


@dataclass(frozen=True, slots=True)
class Node:
    """A piece of a study: what it is made from, where it lies, and the command that makes it.

    Attributes:
        name: the branch that it stands on, like `main/llm-1/regap/stage1`; names differ within a study, while
            two names may mean one folder.
        kind: what it is; kinds share an estimate of their time.
        recipe: plain JSON values that say how it is made. No path: those change with the machine.
        made_from: `code` (hash), `versions` of libraries and `needs` (keys).
        key: hash of `kind`, `recipe` and `made_from`.
        output: its folder.
        code: files and folders of the repository that make it.
        needs: names of nodes that are made first.
        command: words; nothing goes through a shell.
        environment: variables on top of the runner's.
        steps: how many steps its progress bar counts to; 0 if it shows none.
        part: of `PARTS`, for what a part of the study ends in; empty for what they rest on.
        llm: seed of the base LLM that it belongs to; None for what all share.
    """

    name: str
    kind: str
    recipe: Mapping[str, Any]
    made_from: Mapping[str, Any]
    key: str
    output: Path
    code: tuple[str, ...]
    needs: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    steps: int = 0
    part: str = ""
    llm: int | None = None

    def by(
        self, command: Sequence[object], *, steps: int = 0, environment: Mapping[str, object] | None = None
    ) -> Node:
        """The same piece with the command that makes it, which may name `output` and those of its needs."""
        words = {name: str(value) for name, value in (environment or {}).items()}
        return replace(self, command=tuple(map(str, command)), steps=steps, environment=words)


@lru_cache(maxsize=1)
def _versions() -> dict[str, str | None]:
    return {library: version_of(library) for library in LIBRARIES}


@lru_cache(maxsize=256)
def _digest_of(code: tuple[str, ...]) -> str:
    return digest_of_code(code)


def digest_of_code(code: Sequence[str]) -> str:
    """Hash of files and folders of the repository as they lie there now.

    Raises:
        StudyError: one is not there.
    """
    absent = [name for name in code if not (REPOSITORY / name).exists()]
    if absent:
        raise StudyError(f"A piece is said to be made by {absent[0]}, but no such code is in {REPOSITORY}.")
    return digest([[name, code_digest([REPOSITORY / name])] for name in code])


def plan_node(
    store: Path,
    name: str,
    kind: str,
    recipe: Mapping[str, Any],
    *,
    code: Sequence[str],
    needs: Sequence[Node] = (),
    part: str = "",
    llm: int | None = None,
) -> Node:
    """A piece of a study with its key and its folder; `Node.by` gives it its command.

    Args:
        store: folder of all pieces.
        name: branch that it stands on.
        kind: what it is, like `align`; letters, digits and dashes.
        recipe: plain JSON values; whatever changes the outcome must be in here or in `needs`.
        code: files and folders of the repository that make it: `regap_patch/study/tiny.py`, `llava`.
        needs: pieces that it reads.
        part: see `Node`.
        llm: see `Node`.

    Raises:
        StudyError: some of the code is not there.
    """
    plain = json.loads(json.dumps(recipe))
    made_from = {
        "code": _digest_of(tuple(code)),
        "versions": _versions(),
        "needs": [need.key for need in needs],
    }
    key = _key(kind, plain, made_from)
    folder = Path(store).resolve() / f"{kind}-{key[:16]}"
    names = tuple(need.name for need in needs)
    return Node(name, kind, plain, made_from, key, folder, tuple(code), needs=names, part=part, llm=llm)


def _key(kind: str, recipe: Mapping[str, Any], made_from: Mapping[str, Any]) -> str:
    return digest({"kind": kind, "recipe": recipe, "made_from": made_from})


def _portable(node: Node) -> dict[str, Any]:
    """Command and environment without the places that change from machine to machine."""

    def plain(text: str) -> str:
        text = text.replace(str(node.output.parent), "STORE")
        return text.replace(sys.executable, "python").replace(str(REPOSITORY), "REPOSITORY")

    environment = {name: plain(value) for name, value in node.environment.items()}
    return {"command": [plain(word) for word in node.command], "environment": environment}


def _files(folder: Path) -> dict[str, int]:
    """Bytes of every file, by its place in the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != RECORD:
            found[path.relative_to(folder).as_posix()] = path.stat().st_size
    return found


def is_done(node: Node) -> bool:
    """Whether its folder is there and whole; what it was made from is asked by `check_node`."""
    return (node.output / RECORD).is_file()


def read_facts(path: Path, names: Sequence[str], remedy: str) -> dict[str, Any]:
    """The content of a JSON file of this package.

    Args:
        path: of the file.
        names: that it must hold.
        remedy: what to do if it does not, as the end of a sentence.

    Raises:
        StudyError: it is not there, torn, or without one of the names.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: found[name] for name in names} | found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} cannot be read ({error}): {remedy}") from error


def read_record(folder: Path) -> dict[str, Any]:
    """The `node.json` of a folder: what `_key` hashes, `key`, how it was made, and its `files`.

    Raises:
        StudyError: there is none, or it cannot be read.
    """
    remedy = "remove the folder, and the next run makes it again."
    return read_facts(folder / RECORD, ("key", "kind", "recipe", "made_from"), remedy)


def write_record(node: Node, seconds: float, commit: str | None) -> None:
    """Say what a finished folder was made from; from here on it counts.

    Args:
        node: whose command has ended well.
        seconds: that it took.
        commit: of the code, see `environment.commit`.
    """
    facts = {"key": node.key, "kind": node.kind, "recipe": node.recipe, "made_from": node.made_from}
    facts |= _portable(node) | {"seconds": round(seconds, 1), "steps": node.steps, "commit": commit}
    facts |= {"files": _files(node.output)}
    unfinished = node.output / f"{RECORD}.tmp"
    with unfinished.open("w", encoding="utf-8") as stream:
        json.dump(facts, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(node.output / RECORD)


def check_node(node: Node) -> None:
    """Make sure that a finished folder was made from what its node says.

    Raises:
        StudyError: it says something else, or files are missing or cut.
    """
    found = read_record(node.output)
    remedy = f"remove {node.output}, and the next run makes it again."
    for part in ("kind", "recipe", "made_from"):
        for where, there, asked in _differences(part, found[part], getattr(node, part)):
            raise StudyError(
                f"The piece '{node.name}' with {where} {asked!r} was looked for in the store, but the "
                f"folder under its key was made with {where} {there!r}: {remedy}"
            )
    if found["key"] != node.key:
        raise StudyError(
            f"The piece '{node.name}' has the key {node.key[:16]}, but its folder says "
            f"{found['key'][:16]}: {remedy}"
        )
    for where, there, asked in _differences(
        "", _portable(node), {name: found.get(name) for name in _portable(node)}
    ):
        raise StudyError(
            f"The piece '{node.name}' was made with {where} {asked!r} and would now be made with {there!r}, "
            f"while its recipe is the same: say the difference in its recipe, or {remedy}"
        )
    check_files(node.output)


def check_files(folder: Path) -> None:
    """Make sure that a finished folder holds what it held when it was made.

    Raises:
        StudyError: files are missing or cut.
    """
    there = _files(folder)
    for name, size in read_record(folder).get("files", {}).items():
        if there.get(name) != size:
            state = "is gone" if name not in there else f"has {there[name]} bytes"
            raise StudyError(
                f"{folder / name} had {size} bytes when it was made and {state}: remove {folder}, and the "
                f"next run makes it again."
            )


def as_made(node: Node, folder: Path) -> Node:
    """The piece as a finished folder says that it was made: the code may have moved on since.

    Raises:
        StudyError: it was made by another recipe.
    """
    found = read_record(folder)
    for part in ("kind", "recipe"):
        for where, there, asked in _differences(part, found[part], getattr(node, part)):
            raise StudyError(
                f"The piece '{node.name}' with {where} {asked!r} was to be reported, but {folder} was made "
                f"with {where} {there!r}: let `regap study run` make it."
            )
    return replace(node, key=found["key"], made_from=found["made_from"], output=folder)


def _differences(where: str, there: Any, asked: Any) -> Iterator[tuple[str, Any, Any]]:
    """Places at which two JSON values differ, each with both values; the deepest place that says it."""
    if isinstance(there, Mapping) and isinstance(asked, Mapping):
        for name in sorted({*there, *asked}):
            inner = f"{where}.{name}" if where else str(name)
            yield from _differences(inner, there.get(name), asked.get(name))
    elif isinstance(there, list) and isinstance(asked, list) and len(there) == len(asked):
        for index, (first, second) in enumerate(zip(there, asked, strict=True)):
            yield from _differences(f"{where}[{index}]", first, second)
    elif there != asked:
        yield where, there, asked
