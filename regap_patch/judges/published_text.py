"""Word lists and prompts of others, read from their own files and proven by their hash.

They are not copied into this package. A preset names the file and the SHA-256 of the list; whoever has that
file (in an installed package, or named by hand) judges with exactly the published words.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from regap_patch.errors import JudgeError

_SUFFIXES = {".json", ".py", ".txt", ".yaml", ".yml", ".ipynb"}


def words_hash(words: Sequence[str]) -> str:
    """SHA-256 of the list as compact JSON, in its order."""
    return hashlib.sha256(
        json.dumps(list(words), ensure_ascii=False, separators=(",", ":")).encode()
    ).hexdigest()


def published_words(name: str, published: Mapping[str, Any], paths: Sequence[Path]) -> tuple[str, ...]:
    """The list that has the preset's hash.

    Args:
        name: of the preset, for the message.
        published: the preset's `sha256`, `entries`, `package`, `file` and `obtain`.
        paths: files, or folders that are searched; the installed package is looked into last.

    Raises:
        JudgeError: no list of that hash is there.
    """
    looked = [*map(Path, paths), *_installed(published)]
    for path in looked:
        for file in _files(path):
            for words in _lists(file):
                if len(words) == published["entries"] and words_hash(words) == published["sha256"]:
                    return tuple(words)
    where = ", ".join(map(str, looked)) or "no file was named, and no installed package holds it"
    raise JudgeError(
        f"{name} needs the published list of {published['entries']} entries (SHA-256 "
        f"{published['sha256'][:16]}...), which was not found ({where}): {published['obtain']}, or use "
        f"keyword-own."
    )


def prompt_text(name: str, path: Path, fields: Sequence[str]) -> str:
    """A prompt of others: the whole of a text file, or the first string of a Python file with these fields.

    Raises:
        JudgeError: there is no such text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = [text] if Path(path).suffix != ".py" else list(_strings(ast.parse(text)))
    except (OSError, SyntaxError, ValueError) as error:
        raise JudgeError(f"{name} was to read its prompt from {path}, but that failed: {error}.") from error
    for text in found:
        try:
            named = {field for _, field, _, _ in string.Formatter().parse(text) if field}
        except ValueError:
            continue
        if named == set(fields):
            return text
    braces = ", ".join("{" + field + "}" for field in fields)
    raise JudgeError(
        f"{name} was to read its prompt from {path}, but no text there has exactly the fields {braces}: name "
        f"the file that holds the published prompt."
    )


def _installed(published: Mapping[str, Any]) -> list[Path]:
    package = published["package"]
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or not spec.submodule_search_locations:
        return []
    return [Path(spec.submodule_search_locations[0]) / published["file"]]


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    elif path.is_file():
        yield path


def _lists(path: Path) -> Iterator[list[str]]:
    """Every list of strings that a file holds; a file that does not parse holds none."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".txt":
            yield [line for line in text.splitlines() if line]
        elif path.suffix == ".py":
            yield from _python_lists(ast.parse(text))
        elif path.suffix in (".yaml", ".yml"):
            import yaml

            yield from _nested_lists(yaml.safe_load(text))
        else:
            yield from _nested_lists(json.loads(text))
    except (OSError, SyntaxError, ValueError, ImportError):
        return
    except Exception as error:  # PyYAML's errors have no standard base
        if type(error).__module__.split(".")[0] != "yaml":
            raise


def _python_lists(tree: ast.AST) -> Iterator[list[str]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.List, ast.Tuple)):
            words = [part.value for part in node.elts if isinstance(part, ast.Constant)]
            if words and len(words) == len(node.elts) and all(isinstance(word, str) for word in words):
                yield [str(word) for word in words]


def _strings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _nested_lists(value: Any) -> Iterator[list[str]]:
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        yield value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from _nested_lists(part)
