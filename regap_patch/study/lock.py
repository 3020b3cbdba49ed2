"""One process at a time makes what lies in a folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from regap_patch.errors import StudyError

PATIENCE = 10.0


@contextmanager
def held(folder: Path, remedy: str) -> Iterator[int]:
    """Hold a folder, and give the number of the open file that holds it.

    A child that inherits this file holds the folder as long as it lives, so that nobody makes anew what an
    orphan still writes to.

    Args:
        folder: to hold; made, if it is not there.
        remedy: what to do if another holds it, as the end of a sentence.

    Raises:
        StudyError: another process holds it, or it cannot be a folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / "lock").open("a+")
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise StudyError(
            f"{folder} was to be a folder to work in, but that fails ({error.strerror}): name another."
        ) from error
    with opened as file:
        _take(file, folder, remedy)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def _take(file: IO[str], folder: Path, remedy: str) -> None:
    """Take the lock; if its holder is gone, wait for the children that end after it."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            file.seek(0)
            holder = file.read().strip()
            orphan = holder.isdigit() and not _is_alive(int(holder))
            if not orphan or time.monotonic() > until:
                who = "left behind by an earlier run" if orphan else f"number {holder or 'unknown'}"
                raise StudyError(
                    f"{folder} was to be worked on, but another process is at it, {who}: {remedy}"
                ) from error
        time.sleep(0.1)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
