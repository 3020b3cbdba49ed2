"""The clone whose scripts the steps of a world and of a study run, and the command of a step."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from importlib.util import find_spec

from regap_patch.errors import StudyError

from .store import REPOSITORY

SCRIPTS = REPOSITORY / "scripts" / "mini"
NEEDED = ("torch", "transformers", "accelerate", "sentencepiece", "PIL", "tqdm", "yaml", "scipy", "llava")


def module(name: str, *flags: object) -> tuple[str, ...]:
    """The command that runs a module of this package."""
    return (sys.executable, "-m", f"regap_patch.study.{name}", *map(str, flags))


@cache
def knobs() -> tuple[str, ...]:
    """Variables from which the scripts of a clone take a setting, where they are not empty."""
    scripts = (*SCRIPTS.glob("*.sh"), SCRIPTS.parent / "stages.sh")
    words = "".join(script.read_text(encoding="utf-8") for script in scripts)
    return tuple(sorted(set(re.findall(r"\$\{([A-Z][A-Z0-9_]*):-", words))))


def check_clone() -> None:
    """Make sure that what the steps run is there, and set what makes them the same everywhere.

    Raises:
        StudyError: it is not.
    """
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent or not SCRIPTS.is_dir():
        raise StudyError(
            "What was asked for runs scripts/mini of a clone in the environment of `make setup`, but "
            f"{', '.join(absent) or SCRIPTS} is not there: clone the repository and run `make setup`."
        )
    for name, value in {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }.items():
        os.environ.setdefault(name, value)
