"""One HTML file that asks nobody for anything: a policy forbids every request and any script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Part(NamedTuple):
    """A section of the page and its link at the top."""

    anchor: str
    title: str
    inside: str


def document(
    title: str,
    header: str,
    parts: Sequence[Part],
    style: str,
    *,
    script: str = "",
    data: str = "",
    skip: tuple[str, str] = ("", ""),
) -> str:
    """The whole file.

    Args:
        title: in words.
        header: HTML below the title.
        parts: in their order.
        style: of the page.
        script: that the page runs; "" for none.
        data: JSON for the script, with nothing in it that closes an element.
        skip: anchor and words of the link that comes first; the first section without.
    """
    anchor, words = skip if skip[0] else (parts[0].anchor, "Skip to the results")
    sections = "".join(
        f'<section id="{part.anchor}"><h2>{escape(part.title)}</h2>{part.inside}</section>' for part in parts
    )
    links = "".join(f'<li><a href="#{part.anchor}">{escape(part.title)}</a></li>' for part in parts)
    block = f'<script type="application/json" id="data">{data}</script>\n' if data else ""
    running = f"<script>{script}</script>" if script else ""
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8">{_policy(style, script)}',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title><style>{style}</style></head><body>",
            f'<a class="skip" href="#{anchor}">{escape(words)}</a>',
            f"<header><h1>{escape(title)}</h1>{header}</header>",
            f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
            f"<main>{sections}</main>",
            f"{block}{running}</body></html>\n",
        ]
    )


def figure(drawn: str, caption: str) -> str:
    """A drawing over its caption, both HTML."""
    return f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>"


def wide_table(name: str, caption: str, head: str, body: str) -> str:
    """A table that scrolls by itself, by keys too; caption and rows are HTML."""
    scroller = f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}">'
    rows = f"<thead>{head}</thead><tbody>{body}</tbody>"
    return f"{scroller}<table><caption>{caption}</caption>{rows}</table></div>"


def folded(summary: str, inside: str) -> str:
    """HTML that is shown on demand."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def _policy(style: str, script: str) -> str:
    """Nothing may be fetched, and no script runs but this one, whatever got into the page."""
    allowed = _hash(script) if script else "'none'"
    rules = (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; "
        f"base-uri 'none'; form-action 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
