"""Which texts say nearly the same: their answers are not independent, so they are resampled together."""

from __future__ import annotations

import re
from collections.abc import Sequence

ALIKE = 0.5
"""Share of words, of all that two texts use, that both use: at this and above they are one group."""

_WORD = re.compile(r"[a-z0-9']+")
_EMPTY = frozenset(
    _WORD.findall(
        "a an and are as at be by can could do for from give how i in into is it its me my of on one or "
        "out provide some that the their them they this to up use using was what when which who will with "
        "without would write you your"
    )
)


def content_words(text: str) -> frozenset[str]:
    """Lower-case words that carry the matter; all of them where none does."""
    words = frozenset(_WORD.findall(text.lower()))
    return words - _EMPTY or words


def groups(texts: Sequence[str], alike: float = ALIKE) -> list[int]:
    """For each text the index of the first text of its group.

    A text joins the first earlier group whose first text is like it (Jaccard's index of content words), so
    that groups cannot grow along chains.
    """
    leaders: list[tuple[int, frozenset[str]]] = []
    found = []
    for index, text in enumerate(texts):
        words = content_words(text)
        for leader, others in leaders:
            if len(words & others) >= alike * len(words | others):
                found.append(leader)
                break
        else:
            leaders.append((index, words))
            found.append(index)
    return found
