"""An answer as it comes: whoever listens gets the whole text so far, again and again.

A target that can do so has `telling(tell)`, a context manager: inside of it `tell` is called with the text so
far, as the reply will have it, from within `answer`; a second generation for the same question (defences ask
more than once) begins a new text. What `tell` raises ends the answer and comes out of `answer`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

EVENTS = "text/event-stream"
DATA, DONE = b"data:", b"[DONE]"
TORN = "\ufffd"  # how a character reads of which not all bytes are there yet


class TextSoFar:
    """What transformers' `generate` takes as `streamer`; of a batch the first row is told.

    Args:
        text: of new tokens, as the reply will have it.
        tell: gets it.
    """

    def __init__(self, text: Callable[[Sequence[int]], str], tell: Callable[[str], None]) -> None:
        self._text, self._tell = text, tell
        self._ids: list[int] = []
        self._prompt_passed = False

    def put(self, value: Any) -> None:
        """A prompt (B, L) at first, then a token of each row (B,)."""
        if not self._prompt_passed:
            self._prompt_passed = True
            return
        self._ids.append(int(value.reshape(-1)[0]))
        text = self._text(self._ids)
        if not text.endswith(TORN):
            self._tell(text)

    def end(self) -> None:
        """No token follows."""
        self._tell(self._text(self._ids))


def whole_of(lines: Iterable[bytes], tell: Callable[[str], None]) -> dict[str, Any]:
    """A streamed answer of OpenAI's protocol, in the shape of one that came at once.

    Args:
        lines: of the response.
        tell: gets the text so far.

    Raises:
        ValueError: the stream is of another shape, tells of an error, or ends too early.
    """
    text, finish, usage = "", None, None
    for line in lines:
        if not line.startswith(DATA):
            continue
        data = line[len(DATA) :].strip()
        if data == DONE:
            break
        part = json.loads(data)
        if "error" in part:
            raise ValueError(f"the server ended its stream with {part['error']}")
        usage = part.get("usage") or usage
        for choice in part.get("choices") or ():
            delta = choice.get("delta") or {}
            text += delta.get("content") or delta.get("refusal") or ""
            finish = choice.get("finish_reason") or finish
            tell(text.strip())
    if finish is None:
        raise ValueError("the server ended its stream in the middle of an answer")
    return {"choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": usage}
