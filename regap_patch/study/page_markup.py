"""HTML of words with numerals in them: each numeral in an element that names its source."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from string import Formatter

from regap_patch.report.document import wide_table
from regap_patch.report.formats import NONE

from .page_numbers import Numbers, Numeral, Piece, Words


def markup(words: Piece | Words, tag: str = "span") -> str:
    """What is plain is escaped, and each numeral stands in an element of its own."""
    if isinstance(words, str):
        return html.escape(words)
    if isinstance(words, Numeral):
        return f"<{tag}{_attributes(words)}>{html.escape(words.text)}</{tag}>"
    return "".join(markup(piece, tag) for piece in words)


def element(tag: str, words: Piece | Words, kind: str = "") -> str:
    """An element; one that holds a lone numeral names its source itself."""
    named = f' class="{kind}"' if kind else ""
    if isinstance(words, Numeral):
        return f"<{tag}{named}{_attributes(words)}>{html.escape(words.text)}</{tag}>"
    return f"<{tag}{named}>{markup(words)}</{tag}>"


def _attributes(numeral: Numeral) -> str:
    return "".join(f' {name}="{html.escape(value)}"' for name, value in numeral.attributes.items())


def table(
    name: str,
    caption: Words,
    head: Sequence[Piece | Words],
    rows: Iterable[Sequence[Piece | Words]],
    left: int = 1,
) -> str:
    """A table with its caption.

    Args:
        name: for those who do not see it.
        caption: what it shows.
        head: names of the columns.
        rows: as many cells each.
        left: number of columns of words, to the left of those of numbers.
    """

    def line(tag: str, cells: Sequence[Piece | Words]) -> str:
        kinds = ("words" if number < left else "" for number in range(len(cells)))
        return f"<tr>{''.join(element(tag, *both) for both in zip(cells, kinds, strict=True))}</tr>"

    body = "".join(line("td", cells) for cells in rows)
    return wide_table(name, markup(caption), line("th", head), body)


def filled(template: str, **pieces: Piece | Words) -> list[Piece]:
    """A text with pieces in the place of their names: `"over {n} LLMs"`."""
    found: list[Piece] = []
    for plain, name, _, _ in Formatter().parse(template):
        found.append(plain)
        if name:
            piece = pieces[name]
            found.extend([piece] if isinstance(piece, (str, Numeral)) else piece)
    return found


def joined(pieces: Iterable[Piece | Words], by: str = ", ") -> list[Piece]:
    """Pieces with words between them."""
    found: list[Piece] = []
    for piece in pieces:
        if found:
            found.append(by)
        found.extend([piece] if isinstance(piece, (str, Numeral)) else piece)
    return found


def ranged(low: Numeral, high: Numeral) -> list[Piece]:
    """`low to high`, or that there is no interval."""
    return [NONE] if NONE in (low.text, high.text) else [low, " to ", high]


def estimate(numbers: Numbers, at: str, style: str, value: str = "estimate") -> list[Piece]:
    """A value with its interval in brackets: those under `at` and `value`, `low`, `high`."""
    found, low, high = (numbers(f"{at}/{name}", style) for name in (value, "low", "high"))
    return [found] if NONE in (low.text, high.text) else [found, " (", *ranged(low, high), ")"]
