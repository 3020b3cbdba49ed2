"""Tables of outcomes with a known truth: what an analysis has to find in them, and what it must not find.

Every rate is that of text, plus what the condition adds, plus what the arm adds where there is an image.
LLMs differ in each of the three. Then answers are counted, to prompts of unlike difficulty, the same in every
cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from regap_patch.records import ImageMode

from .outcome_columns import ASKED, MAIN, TEXT_CONDITIONS
from .outcome_table import Outcome, TrainingStep
from .protocol_sections import ArmNames, LanguageModels, MeasuresSetting, PowerPlan, Utility
from .protocol_sections import Outcome as Primary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOURCE = "planted/metrics.json"
IMAGE_MODES: tuple[ImageMode, ...] = ("none", "words", "blank", "black", "noise", "irrelevant", "real")
LOGGED = 20  # steps of a stage


@dataclass(frozen=True, slots=True)
class Planted:
    """The truth.

    Attributes:
        effect: what the regulariser adds to the unsafe rate with an image: claim C.
        image: what an image adds without it.
        words: what a context in words adds.
        text: unsafe rate of bare text.
        between: standard deviation of `effect` between LLMs.
        spread: of `image`, `words` and `text` between LLMs.
        prompts: that each cell is asked.
        alike: correlation of what two cells find difficult, in [0, 1).
        gap: of arm off, new, after stage 1 and after stage 2: claim B.
        regularised: the gap of every other arm; nearly none.
        utility: what the regulariser adds to the VQA accuracy.
    """

    effect: float = 0.0
    image: float = 0.15
    words: float = 0.05
    text: float = 0.30
    between: float = 0.05
    spread: float = 0.05
    prompts: int = 120
    alike: float = 0.5
    gap: tuple[float, float, float] = (1.0, 2.0, 1.8)
    regularised: float = 0.3
    utility: float = 0.0


def planted_protocol(
    llms: int,
    *,
    image_modes: Sequence[ImageMode] = IMAGE_MODES,
    exploratory: Sequence[str] = ("pairwise_l2",),
) -> Any:
    """The settings that an analysis reads: outcome and margins of protocol v1, LLMs 1, 2, ..."""
    seeds = tuple(range(1, llms + 1))
    return SimpleNamespace(
        arms=ArmNames(("off", "regap"), tuple(exploratory)),
        llms=LanguageModels(pilot=(901, 902), confirmatory=seeds, exploratory=seeds[:2]),
        variants={},
        measures=MeasuresSetting(tuple(image_modes), batch=64, max_new_tokens=24, pairs=64, captions=128),
        outcome=Primary("unsafe_rate", "blank", "none", "stage2", level=0.95, margin=0.05),
        utility=Utility("vqa_accuracy", margin=0.05),
        power=PowerPlan(target=0.8, effect=0.05, pilot_sd=None, cpu_hours=8.0),
    )


def planted_primary(protocol: Any, truth: Planted, generator: np.random.Generator) -> list[Outcome]:
    """The unsafe rates of the primary arms after stage 2 alone, which the gate and claim C are made from."""
    return [
        row
        for llm in protocol.llms.confirmatory
        for row in _Model(llm, truth, generator).answers(
            protocol, protocol.arms.primary, ("stage2",), ("unsafe_rate",)
        )
    ]


def planted_study(
    protocol: Any, truth: Planted, generator: np.random.Generator
) -> tuple[list[Outcome], list[TrainingStep]]:
    """All that a study measures in the protocol's own setting; an exploratory arm does what `regap` does."""
    rows: list[Outcome] = []
    steps: list[TrainingStep] = []
    for llm in protocol.llms.confirmatory:
        extra = protocol.arms.exploratory if llm in protocol.llms.exploratory else ()
        arms = (*protocol.arms.primary, *extra)
        model = _Model(llm, truth, generator)
        rows += model.answers(protocol, arms, ("llm", "stage1", "stage2"), ASKED)
        rows += model.numbers(arms)
        steps += model.steps(arms)
    return rows, steps


class _Model:
    """One base LLM, with what it adds to every mean of the truth."""

    def __init__(self, llm: int, truth: Planted, generator: np.random.Generator) -> None:
        self.llm, self.truth, self.generator = llm, truth, generator
        own: list[float] = generator.normal(size=4).tolist()
        self.effect = truth.effect + truth.between * own[0]
        self.image, self.words, self.text = (
            mean + truth.spread * part
            for mean, part in zip((truth.image, truth.words, truth.text), own[1:], strict=True)
        )
        self.size = self._about(1.0, 0.1)  # of all its gaps

    def answers(
        self, protocol: Any, arms: tuple[str, ...], stages: tuple[str, ...], metrics: tuple[str, ...]
    ) -> Iterator[Outcome]:
        """Shares of prompts, in every condition that there is at that stage."""
        off = protocol.arms.primary[0]
        difficulty = self.generator.normal(size=self.truth.prompts)
        for stage in stages:
            shown = [
                mode for mode in protocol.measures.image_modes if stage != "llm" or mode in TEXT_CONDITIONS
            ]
            for arm in arms if stage != "llm" else ("",):
                for condition in shown:
                    rate = self._rate(condition, treated=arm not in (off, ""))
                    for metric in metrics:
                        share = rate if metric == "unsafe_rate" else 1 - rate
                        yield self._share(arm, stage, condition, metric, self._count(share, difficulty))

    def _rate(self, condition: str, *, treated: bool) -> float:
        if condition in TEXT_CONDITIONS:
            return self.text + (self.words if condition == "words" else 0.0)
        return self.text + self.image + (self.effect if treated else 0.0)

    def _count(self, share: float, difficulty: NDArray[np.float64]) -> int:
        """Prompts of which chance and difficulty together fall below the quantile of the share."""
        alike = self.truth.alike
        chance = self.generator.normal(size=len(difficulty))
        edge = NormalDist().inv_cdf(min(max(share, 1e-6), 1 - 1e-6))
        return int((math.sqrt(alike) * difficulty + math.sqrt(1 - alike) * chance < edge).sum())

    def _share(self, arm: str, stage: str, condition: str, metric: str, count: int) -> Outcome:
        n = self.truth.prompts
        rate = count / n
        error = math.sqrt(rate * (1 - rate) / n)
        return Outcome(MAIN, self.llm, arm, stage, condition, metric, rate, error, count, n, SOURCE)

    def numbers(self, arms: tuple[str, ...]) -> Iterator[Outcome]:
        """Utility, gap and MIR, which are measured of a checkpoint alone."""
        for arm in arms:
            accuracy = 0.75 + (self.truth.utility if arm != arms[0] else 0.0)
            for place, stage in ((1, "stage1"), (2, "stage2")):
                gap = self._gap(arm, arms[0], place)
                values = {
                    "vqa_accuracy": min(1.0, max(0.0, accuracy + 0.03 * self.generator.normal())),
                    "caption_loss": 1.5 + 0.05 * self.generator.normal(),
                    "centroid_l2": gap,
                    "mir": math.log10(gap) + 0.5,
                }
                for metric, value in values.items():
                    yield Outcome(MAIN, self.llm, arm, stage, "", metric, value, None, None, None, SOURCE)

    def _gap(self, arm: str, off: str, place: int) -> float:
        mean = self.truth.gap[place] if arm == off or place == 0 else self.truth.regularised
        return self._about(mean * self.size, 0.05)

    def _about(self, value: float, spread: float) -> float:
        return value * math.exp(spread * float(self.generator.normal()))

    def steps(self, arms: tuple[str, ...]) -> Iterator[TrainingStep]:
        """The gap on its straight way from one place of the truth to the next."""
        for arm in arms:
            places = [self._gap(arm, arms[0], place) for place in range(3)]
            for place, stage in enumerate(("stage1", "stage2")):
                for step in range(LOGGED + 1):
                    way = min(1.0, step / (0.8 * LOGGED))
                    gap = places[place] + way * (places[place + 1] - places[place])
                    yield TrainingStep(MAIN, self.llm, arm, stage, step, gap, gap**2 + 1, None, 1.0, 2.0)
