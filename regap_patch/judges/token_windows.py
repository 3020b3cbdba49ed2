"""Token ids that are too many for a judge: what it gets to see of them.

A judge that reads 512 tokens and cuts from the right never sees harm that comes late. It is shown two windows
instead, the head as it always was, and one that keeps the question and ends where the answer ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Windows:
    """What is shown of one exchange.

    Attributes:
        ids: one or two windows, each at most `limit` long.
        hides: tokens in the middle are in neither.
    """

    ids: tuple[tuple[int, ...], ...]
    hides: bool


def head_and_tail(ids: Sequence[int], question: int, limit: int) -> Windows:
    """Windows of (L,) token ids whose first `question` are the question's.

    Args:
        ids: all of them.
        question: how many open every window; more than half of `limit` leaves half to the answer.
        limit: of a window.
    """
    ids = tuple(ids)
    if len(ids) <= limit:
        return Windows((ids,), hides=False)
    opening = min(question, limit // 2)
    rest = limit - opening
    tail = ids[:opening] + ids[len(ids) - rest :]
    return Windows((ids[:limit], tail), hides=len(ids) - rest > limit)
