"""An answer cannot speak as the prompt around it: tags and special tokens in it are broken up."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def escape_tags(text: str, tags: Iterable[str]) -> str:
    """A space after the first character of every tag, in whatever case it is written.

    The text stays readable to the judge, and none of the tags is in it any more.
    """
    ordered = sorted({tag for tag in tags if len(tag) > 1}, key=len, reverse=True)
    if not ordered:
        return text
    pattern = re.compile("|".join(map(re.escape, ordered)), re.IGNORECASE)
    while True:  # what was broken up may have left another tag behind
        escaped = pattern.sub(lambda found: f"{found.group()[0]} {found.group()[1:]}", text)
        if escaped == text:
            return text
        text = escaped


def special_tokens(tokenizer: Any) -> list[str]:
    """Texts that this tokenizer turns into one token with a meaning of its own."""
    special = {str(token) for token in tokenizer.all_special_tokens}
    decoder = getattr(tokenizer, "added_tokens_decoder", {})
    return sorted(special | {str(token) for token in decoder.values() if token.special})
