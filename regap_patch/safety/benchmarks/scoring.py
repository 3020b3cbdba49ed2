"""Answers that are right or wrong: what a utility benchmark's adapter offers beside `check` and `samples`.

The scorers are those of `llava.eval`; they are imported when the first answer is scored, so that whoever has
the patch layer alone can still do everything else. An item says in its `meta` how it is scored: `scorer` is
the benchmark, `reference` is what the answer is held against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from regap_patch.errors import BenchmarkError
from regap_patch.records import Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark

SCORED = ("mme", "pope", "scienceqa", "textvqa", "world")
"""Adapters that are `Scored`."""


class Scored(Protocol):
    """The module of a utility benchmark.

    Attributes:
        PARSER: how an answer is read; two parsers are two numbers, so reports name it.
    """

    BENCHMARK: Benchmark
    PARSER: str

    @staticmethod
    def item_score(text: str, reference: Mapping[str, Any]) -> float:
        """How right an answer is, in [0, 1]. An answer that cannot be read is wrong."""

    @staticmethod
    def summary(answered: Sequence[tuple[Sample, str]]) -> dict[str, float]:
        """The numbers that the benchmark's users know, of (item, answer)."""


def scorer_of(name: str) -> Scored:
    """The adapter that scores a benchmark's answers.

    Raises:
        BenchmarkError: its answers are not right or wrong by themselves.
    """
    if name not in SCORED:
        raise BenchmarkError(
            f"The answers to {name!r} were to be scored, but only {', '.join(SCORED)} have right ones: give "
            f"those of other benchmarks to a judge."
        )
    return cast("Scored", import_module(f"{__package__}.{name}"))


def score_text(text: str, meta: Mapping[str, Any]) -> float:
    """Score an answer by the `meta` of its item.

    Raises:
        BenchmarkError: the item does not say how, or the scorer is not installed.
    """
    if "scorer" not in meta or "reference" not in meta:
        raise BenchmarkError(
            "An answer was to be scored, but its item has no scorer and reference in meta: ask a judge."
        )
    return scorer_of(meta["scorer"]).item_score(text, meta["reference"])


def known_numbers(answered: Iterable[tuple[Sample, str]]) -> dict[str, dict[str, dict[str, float]]]:
    """Benchmark -> image mode -> the numbers that its users know, of (item, answer).

    Items of judged benchmarks are passed over. Only answered items are in the numbers: say beside them how
    many there were to answer.
    """
    parts: dict[tuple[str, str], list[tuple[Sample, str]]] = {}
    for item, text in answered:
        if item.meta.get("scorer") == item.benchmark:
            parts.setdefault((item.benchmark, item.image_mode), []).append((item, text))
    numbers: dict[str, dict[str, dict[str, float]]] = {}
    for (benchmark, mode), pairs in sorted(parts.items()):
        numbers.setdefault(benchmark, {})[mode] = scorer_of(benchmark).summary(pairs)
    return numbers


def from_llava(module: str, name: str) -> Any:
    """A function or class of `llava.eval`.

    Raises:
        BenchmarkError: it is not there, as in an environment with another llava.
    """
    try:
        return getattr(import_module(f"llava.eval.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise BenchmarkError(
            f"Answers were to be scored with llava.eval.{module}.{name}, but the llava that is installed "
            f"here has none ({error}): install this project's llava, or score in an environment that has it."
        ) from error
