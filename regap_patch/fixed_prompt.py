"""Prompts of others, used only where the user's own copy holds their exact text; ours has another name."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from regap_patch.errors import BenchmarkError


@dataclass(frozen=True, slots=True)
class FixedPrompt:
    """A published prompt, known by its length and hash, and our own words for the same.

    Attributes:
        name: of the published one; ours is called `<name>-own`.
        characters: of the published text.
        sha256: its first 16 digits.
        own: our words.
    """

    name: str
    characters: int
    sha256: str
    own: str

    def is_published(self, text: str) -> bool:
        """Whether this is the published text, to the letter."""
        return len(text) == self.characters and hashlib.sha256(text.encode()).hexdigest()[:16] == self.sha256

    def published_in(self, file: Path) -> str | None:
        """The published text, if a file holds it.

        A text file holds it if it is nothing else; a Python file, if one of its strings is.
        """
        return next(filter(self.is_published, _strings(file)), None)

    def wording(self, files: Sequence[Path]) -> tuple[str, str]:
        """(name, text) of the wording to use: the published one, if one of these files holds it, else ours.

        Raises:
            BenchmarkError: a text file that holds something else.
        """
        for file in files:
            if not file.is_file():
                continue
            text = self.published_in(file)
            if text is not None:
                return self.name, text
            if file.suffix != ".py":
                raise BenchmarkError(
                    f"{file} was to hold the prompt {self.name} ({self.characters} characters, SHA-256 "
                    f"{self.sha256}...), but it holds another text: put the exact text there, or remove the "
                    f"file to ask in our own words."
                )
        return f"{self.name}-own", self.own


def _strings(file: Path) -> Iterator[str]:
    """Texts of a file; a Python file is parsed, never run."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix != ".py":
        yield text.removesuffix("\n")
        return
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
