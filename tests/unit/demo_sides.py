"""Sides of the demo whose models are scripts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from regap_patch.demo.side import Side
from regap_patch.safety.target import Reply


class TellingTarget:
    """Says a text word by word; `words(question)` may raise in the middle, or wait."""

    kind = "script"

    def __init__(self, words: Callable[..., Iterator[str]]) -> None:
        self._words, self._tell = words, lambda text: None
        self.asked: list = []
        self.closed = 0

    @contextlib.contextmanager
    def telling(self, tell):
        self._tell = tell
        try:
            yield
        finally:
            self._tell = lambda text: None

    def answer(self, questions, decoding, seeds):
        (question,) = questions
        self.asked.append((question, decoding, seeds[0]))
        said = []
        for word in self._words(question):
            said.append(word)
            self._tell(" ".join(said))
        return [Reply(" ".join(said), len(said), "stop", 0.25)]

    def fingerprint(self):
        return {"kind": "script"}

    def close(self):
        self.closed += 1


def echo(question) -> Iterator[str]:
    """The prompt, and what came with it."""
    yield from question.text.split()
    yield "seen" if question.picture is not None else "unseen"


def saying(text: str) -> Callable[..., Iterator[str]]:
    return lambda question: iter(text.split())


def side(name: str, words: Callable[..., Iterator[str]] = echo, **more) -> Side:
    target = TellingTarget(words)
    return Side(name, lambda: target, **more)


class Gate:
    """Words that come when they are let through."""

    def __init__(self, *words: str) -> None:
        self._words = words
        self.steps = threading.Semaphore(0)
        self.begun = threading.Event()

    def __call__(self, question) -> Iterator[str]:
        self.begun.set()
        for word in self._words:
            assert self.steps.acquire(timeout=20)
            yield word

    def open(self, steps: int = 1000) -> None:
        for _ in range(steps):
            self.steps.release()
