"""One adapter a file, from a data set's own layout to samples."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from regap_patch.errors import BenchmarkError

BENCHMARKS = (
    "mm_safetybench",
    "figstep",
    "vlsafe",
    "vlguard",
    "advbench",
    "jailbreakbench",
    "xstest",
    "mossbench",
    "pope",
    "scienceqa",
    "textvqa",
    "mme",
    "world",
    "custom",
)
"""Names of the adapters, each a module of this package."""


def adapter_of(name: str) -> Any:
    """The `Adapter` of a benchmark.

    Raises:
        BenchmarkError: there is no such benchmark.
    """
    if name not in BENCHMARKS:
        raise BenchmarkError(
            f"The benchmark {name!r} was asked for, but there are {', '.join(BENCHMARKS)}: choose among "
            f"them, or bring your own items as custom=FOLDER."
        )
    return import_module(f"{__name__}.{name}")
