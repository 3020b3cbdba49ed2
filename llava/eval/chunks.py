"""The parts of a list that several processes answer, one each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from llava.eval.command_line import InputError

T = TypeVar("T")


def split_list(lst: Sequence[T], n: int) -> list[Sequence[T]]:
    """`lst` in `n` parts of ceil(len / n), in order; the last ones are shorter, or empty."""
    size = math.ceil(len(lst) / n)
    return [lst[part * size : (part + 1) * size] for part in range(n)]


def get_chunk(lst: Sequence[T], n: int, k: int) -> Sequence[T]:
    """Part `k` of `n`, from 0; empty where the list is too short for it.

    Raises:
        InputError: there is no such part.
    """
    if n < 1 or not 0 <= k < n:
        raise InputError(
            f"Part {k} of {n} was asked for; --num-chunks must be >= 1, --chunk-idx from 0 to one below it."
        )
    return split_list(lst, n)[k]
