"""What git knows of a file: the commit that last changed it, and whether it was edited since."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as git sees it.

    Attributes:
        commit: that last changed it; None outside of a repository, or if it was never committed.
        edited: whether it differs from what the repository's last commit holds.
    """

    commit: str | None
    edited: bool


def git(folder: Path, *words: str) -> str | None:
    """What git answers in a folder; None if it fails or is not here."""
    try:
        return subprocess.check_output(
            ["git", *words], cwd=folder, text=True, stderr=subprocess.DEVNULL, timeout=30
        ).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def facts_of(path: Path) -> FileFacts:
    """Commit and state of one file; contents are compared, so that no flag of the index hides an edit."""
    path = path.resolve()
    commit = git(path.parent, "log", "-1", "--format=%H", "--", path.name)
    committed = git(path.parent, "rev-parse", f"HEAD:./{path.name}")
    return FileFacts(
        commit or None, committed is None or committed != git(path.parent, "hash-object", path.name)
    )


def is_ancestor(commit: str, later: str, folder: Path) -> bool:
    """Whether `later` is `commit` or stands on it; False for commits that are unknown in `folder`."""
    return git(folder, "merge-base", "--is-ancestor", commit, later) is not None
