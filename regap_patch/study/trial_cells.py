"""The numbers of a trial by what they mean: a rate, what an image adds to it, a mean over LLMs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from regap_patch.errors import StudyError

from .outcome_columns import MAIN, TEXT_CONDITIONS
from .outcome_table import Outcome, Outcomes, TrainingStep
from .student import mean_of

IMAGES = "images"  # stands for the mean over all conditions with an image
PRIMARY, EXPLORATORY = "primary", "exploratory"
FEW = 5  # LLMs, below which an interval says next to nothing


@dataclass(frozen=True)
class Trial:
    """A protocol and what was measured by it.

    Attributes:
        outcomes: the table of outcomes.
        training: the table of training steps.
        protocol: see `protocol.py`; only its settings are read.
        arms: what the arms do, by name; an arm that is not there is one that nothing is known of.
    """

    outcomes: Outcomes
    training: Sequence[TrainingStep]
    protocol: Any
    arms: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rows: Iterable[Outcome],
        training: Iterable[TrainingStep],
        protocol: Any,
        arms: Mapping[str, Any] | None = None,
    ) -> Trial:
        """Check that the protocol can be analysed.

        Raises:
            StudyError: no LLM, one twice or one of the pilot, or other primary arms than two.
        """
        llms, pilot = list(protocol.llms.confirmatory), set(protocol.llms.pilot)
        if not llms or len(set(llms)) < len(llms) or pilot & set(llms):
            raise StudyError(
                f"The confirmatory LLMs are {llms}, those of the pilot {sorted(pilot)}: name at least one, "
                f"each once, and none that the setting was chosen on."
            )
        if len(protocol.arms.primary) != 2:
            raise StudyError(
                f"The primary arms are {list(protocol.arms.primary)}: name two, the reference first."
            )
        return cls(Outcomes(rows), list(training), protocol, dict(arms or {}))

    @property
    def llms(self) -> list[int]:
        """The confirmatory ones."""
        return list(self.protocol.llms.confirmatory)

    @property
    def explored(self) -> list[int]:
        """Those that the exploratory arms run on, none of the pilot."""
        return [llm for llm in self.protocol.llms.exploratory if llm not in self.protocol.llms.pilot]

    @property
    def off(self) -> str:
        """Name of the arm that others are compared with."""
        return str(self.protocol.arms.primary[0])

    @property
    def treated(self) -> str:
        """Name of the arm under test."""
        return str(self.protocol.arms.primary[1])

    @property
    def stage(self) -> str:
        """Of the primary outcome."""
        return str(self.protocol.outcome.stage)

    @property
    def level(self) -> float:
        """Of every interval."""
        return float(self.protocol.outcome.level)

    @cached_property
    def images(self) -> list[str]:
        """Conditions with an image."""
        return [mode for mode in self.protocol.measures.image_modes if mode not in TEXT_CONDITIONS]

    def rate(
        self,
        llm: int,
        arm: str,
        condition: str,
        *,
        stage: str | None = None,
        metric: str | None = None,
        variant: str = MAIN,
    ) -> float:
        """A share in one condition, or its mean over all `IMAGES`; by default the primary outcome's.

        Raises:
            StudyError: it was not measured.
        """
        metric, stage = metric or self.protocol.outcome.metric, stage or self.stage
        conditions = self.images if condition == IMAGES else [condition]
        values = [self.outcomes.value(llm, arm, stage, one, metric, variant=variant) for one in conditions]
        return sum(values) / len(values)

    def rise(self, llm: int, arm: str, condition: str, over: str, **where: Any) -> float:
        """What a condition adds to another one, of the same checkpoint."""
        return self.rate(llm, arm, condition, **where) - self.rate(llm, arm, over, **where)

    def contrast(
        self, llm: int, arm: str, condition: str | None = None, over: str | None = None, **where: Any
    ) -> float:
        """What the condition adds in an arm, minus what it adds in `off`: by default claim C's."""
        outcome = self.protocol.outcome
        pair = (condition or outcome.condition, over or outcome.baseline)
        return self.rise(llm, arm, *pair, **where) - self.rise(llm, self.off, *pair, **where)

    def over_llms(self, value: Callable[[int], float], llms: Sequence[int] | None = None) -> dict[str, Any]:
        """One value per LLM -> estimate; by default over the confirmatory ones."""
        return estimate({llm: value(llm) for llm in llms or self.llms}, self.level)


def estimate(per_llm: Mapping[int, float], level: float) -> dict[str, Any]:
    """The mean over LLMs with its t interval, as plain JSON values.

    Returns:
        n, estimate, sd, stderr, low, high, p, level, per_llm (value by seed) and note (None, or that the LLMs
        are few); all but n, level and per_llm None without an LLM, and without an interval of a single one.
    """
    by_name = {str(llm): value for llm, value in per_llm.items()}
    found = asdict(mean_of(list(per_llm.values()), level)) if per_llm else dict.fromkeys(_EMPTY)
    found["estimate"] = found.pop("mean")
    return {**found, "n": len(per_llm), "level": level, "per_llm": by_name, "note": _note(len(per_llm))}


_EMPTY = ("n", "mean", "sd", "stderr", "low", "high", "p")


def _note(n: int) -> str | None:
    if n >= FEW:
        return None
    return f"{n} LLM{'s' if n != 1 else ''}: too few to say anything of others"


def excludes_zero(found: Mapping[str, Any]) -> bool:
    """Whether the interval of an estimate lies on one side of zero; never without one."""
    return above_or_below(found["low"], found["high"]) != "undecided"


def above_or_below(low: float | None, high: float | None) -> str:
    """The verdict of an interval against zero."""
    if low is None or high is None:
        return "undecided"
    return "supported" if low > 0 else "contradicted" if high < 0 else "undecided"
