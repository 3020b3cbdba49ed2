"""The sections of a protocol, each a value of its own; what they mean together is checked by `protocol`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regap_patch.records import ImageMode

Metric = Literal[
    "unsafe_rate",
    "refusal_rate",
    "incoherent_rate",
    "over_refusal_rate",
    "benign_compliance",
    "refusal_opener_prob",
    "vqa_accuracy",
    "caption_loss",
    "centroid_l2",
    "pairwise_sq",
    "image_norm",
    "text_norm",
    "norm_ratio",
    "mir",
]


@dataclass(frozen=True, slots=True)
class WorldSetting:
    """The things of the world and the data about them.

    Attributes:
        forbidden: things that are refused.
        benign: harmless things.
        twins: harmless things named like forbidden ones.
        phrasings: in which the benchmark asks about each thing.
        questions: of the benchmark about pictures.
        pictures: with a caption, for stage 1.
        conversations: for stage 2, all benign.
        seed: of pictures and conversations. Things, text and requests are drawn anew for each LLM, by its
            own seed.
    """

    forbidden: int
    benign: int
    twins: int
    phrasings: int
    questions: int
    pictures: int
    conversations: int
    seed: int


@dataclass(frozen=True, slots=True)
class LanguageModelSetting:
    """The base LLM, the unit of replication.

    Attributes:
        hidden_size: its width.
        num_layers: its depth.
        steps: of its training, the same for every LLM.
        documents: which it reads.
        vocabulary: pieces of the tokenizer.
    """

    hidden_size: int
    num_layers: int
    steps: int
    documents: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class AlignmentSetting:
    """How the LLM learns to refuse.

    Attributes:
        context_share: breadth: share of the refusals that stand behind a scene in words.
        learning_rate: at its peak.
        stop_at: strength: training stops at the first check with a text unsafe rate of at most this, on
            requests that the benchmark does not ask.
        band: the rates to stop at, lowest and highest. A check below it is undone; `stop_at` lies in it, so
            the part above `stop_at` is never stopped in.
        check_every: steps between two checks.
        max_steps: after which an LLM that is not in the band has failed, and the study stops.
    """

    context_share: float
    learning_rate: float
    stop_at: float
    band: tuple[float, float]
    check_every: int
    max_steps: int


@dataclass(frozen=True, slots=True)
class TowerSetting:
    """The vision tower, one for all.

    Attributes:
        steps: of its training.
        seed: of its weights and its pictures.
    """

    steps: int
    seed: int


@dataclass(frozen=True, slots=True)
class Stage1Setting:
    """Projector pretraining.

    Attributes:
        batch: samples of a step.
        learning_rate: at its peak; an arm may bring its own.
    """

    batch: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Stage2Setting:
    """Benign fine-tuning.

    Attributes:
        method: every weight of the LLM, or adapters.
        batch: samples of a step.
        learning_rate: at its peak.
        instruction_share: of the pictures, those that come with a harmless request instead of questions
            about them.
    """

    method: Literal["full", "lora"]
    batch: int
    learning_rate: float
    instruction_share: float


@dataclass(frozen=True, slots=True)
class MeasuresSetting:
    """What is measured of every checkpoint.

    Attributes:
        image_modes: what stands in the picture's place, see `regap_patch.records`.
        batch: questions at once.
        max_new_tokens: at which an answer is cut.
        pairs: of image and text, for gap statistics and MIR.
        captions: for the caption loss.
    """

    image_modes: tuple[ImageMode, ...]
    batch: int
    max_new_tokens: int
    pairs: int
    captions: int


@dataclass(frozen=True, slots=True)
class ArmNames:
    """Which arms run.

    Attributes:
        primary: the control and what is compared with it, in this order.
        exploratory: all others.
    """

    primary: tuple[str, str]
    exploratory: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LanguageModels:
    """Seeds of base LLMs.

    Attributes:
        pilot: on which settings were searched; none of them is in the primary result.
        confirmatory: of the primary result.
        exploratory: of the confirmatory ones, those on which exploratory arms and variants run.
    """

    pilot: tuple[int, ...]
    confirmatory: tuple[int, ...]
    exploratory: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The primary outcome: (condition - baseline) in the treated arm minus the same in the control.

    Attributes:
        metric: a metric of the table of outcomes.
        condition: image mode that may do harm.
        baseline: image mode that it is compared with.
        stage: after which it is measured.
        level: of the two-sided interval.
        margin: effect that is worth having; not supported if the interval lies above minus this and does
            not end below 0.
    """

    metric: Metric
    condition: ImageMode
    baseline: ImageMode
    stage: Literal["stage1", "stage2"]
    level: float
    margin: float


@dataclass(frozen=True, slots=True)
class Utility:
    """Non-inferiority beside the primary outcome.

    Attributes:
        metric: a metric of the table of outcomes; more is better.
        margin: loss that is borne.
    """

    metric: Metric
    margin: float


@dataclass(frozen=True, slots=True)
class PowerPlan:
    """How the number of confirmatory LLMs was found.

    Attributes:
        target: power that was asked for.
        effect: at this true effect.
        pilot_sd: standard deviation over pilot LLMs of the primary outcome; None before the pilot.
        cpu_hours: that the confirmatory runs may take.
    """

    target: float
    effect: float
    pilot_sd: float | None
    cpu_hours: float
