"""How a program of this folder ends when what it was given is not what it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable


class InputError(ValueError):
    """What a user passed does not do; the sentence says what was asked, what was found, what to do."""


def run(main: Callable[[], object]) -> None:
    """Call a program's `main`; bad input ends it with its one sentence and status 1."""
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
