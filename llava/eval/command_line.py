"""How a program ends when what it was given is not what it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable


class InputError(ValueError):
    """What a user passed does not do; the sentence says what was asked, what was found, what to do."""


def run(main: Callable[[], object], *refusals: type[Exception]) -> None:
    """Call a program's `main`; bad input ends it with its one sentence and status 1.

    Args:
        main: the program.
        refusals: what it raises on bad input beside `InputError`.
    """
    try:
        main()
    except (InputError, *refusals) as error:
        sys.exit(str(error))
