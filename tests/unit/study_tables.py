"""Folders of studies, made of tables by code: plausible numbers, and nothing that was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from regap_patch.study.outcome_table import Outcome, TrainingStep, write_outcomes, write_training

CONDITIONS = ("none", "words", "blank", "black", "noise", "irrelevant", "real")
ITEMS = {"unsafe_rate": 120, "over_refusal_rate": 20, "benign_compliance": 40}
PROTOCOL: dict[str, Any] = {
    "name": "protocol-v1",
    "about": "A study that tests use.",
    "measures": {"image_modes": list(CONDITIONS), "batch": 64, "max_new_tokens": 24},
    "arms": {"primary": ["off", "regap"], "exploratory": ["pairwise_l2", "norm_only"]},
    "llms": {"pilot": [901, 902, 903], "confirmatory": list(range(1, 13)), "exploratory": [1, 2]},
    "variants": {"narrow": {"alignment": {"context_share": 0.0}}, "lora": {"stage2": {"method": "lora"}}},
    "outcome": {
        "metric": "unsafe_rate",
        "condition": "blank",
        "baseline": "none",
        "stage": "stage2",
        "level": 0.95,
        "margin": 0.05,
    },
    "utility": {"metric": "vqa_accuracy", "margin": 0.05},
    "power": {"target": 0.8, "effect": 0.05, "pilot_sd": 0.05, "cpu_hours": 8},
}


class Tables:
    """The tables of a study of these LLMs and arms.

    Args:
        protocol: as `PROTOCOL`.
        tax: what a blank image adds to the unsafe rate in arm off.
        effect: what the arm regap adds to that.
        seed: of everything random.
    """

    def __init__(self, protocol: Mapping[str, Any], *, tax: float, effect: float, seed: int) -> None:
        self.protocol, self.tax, self.effect = protocol, tax, effect
        self.random = Random(seed)
        self.outcomes: list[Outcome] = []
        self.training: list[TrainingStep] = []
        arms, llms = protocol["arms"], protocol["llms"]
        for llm in llms["confirmatory"]:
            self._branches("main", llm, arms["primary"])
        for llm in llms["exploratory"]:
            self._branches("main", llm, arms["exploratory"], again=True)
            for variant in protocol["variants"]:
                self._branches(variant, llm, arms["primary"])

    def _branches(self, variant: str, llm: int, arms: Sequence[str], *, again: bool = False) -> None:
        base = self.random.uniform(0.15, 0.3)
        if not again:
            self._asked(variant, llm, "", "llm", base, 0.0, CONDITIONS[:2])
        for arm in arms:
            self._training(variant, llm, arm)
            change = 0.0 if arm == "off" else self.effect
            shift = self.random.gauss(self.tax + change, 0.03)
            for stage in ("stage1", "stage2"):
                self._asked(variant, llm, arm, stage, base, shift, CONDITIONS)
                self._checkpoint(variant, llm, arm, stage)

    def _asked(
        self, variant: str, llm: int, arm: str, stage: str, base: float, shift: float, modes: Sequence[str]
    ) -> None:
        for mode in modes:
            unsafe = base + {"none": 0.0, "words": 0.05}.get(mode, shift)
            rates = {
                "unsafe_rate": unsafe,
                "refusal_rate": 0.95 - unsafe,
                "incoherent_rate": 0.02,
                "over_refusal_rate": 0.1,
                "benign_compliance": 0.9,
            }
            for metric, rate in rates.items():
                self._share(variant, llm, arm, stage, mode, metric, rate)
            opener = min(1.0, max(0.0, 0.9 - unsafe + self.random.gauss(0, 0.02)))
            place = (variant, llm, arm, stage, mode)
            self.outcomes.append(
                Outcome(*place, "refusal_opener_prob", opener, 0.01, None, None, self._file(place))
            )

    def _share(self, *key: Any) -> None:
        *place, rate = key
        n = ITEMS.get(place[-1], 120)
        count = min(n, max(0, round(n * (rate + self.random.gauss(0, 0.03)))))
        error = math.sqrt(count / n * (1 - count / n) / n)
        self.outcomes.append(Outcome(*place, count / n, error, count, n, self._file(place)))

    def _checkpoint(self, *place: Any) -> None:
        arm = place[2]
        gap = self.random.uniform(3.0, 4.0) if arm == "off" else self.random.uniform(0.2, 0.4)
        numbers = {
            "caption_loss": self.random.uniform(1.0, 1.2),
            "centroid_l2": gap,
            "pairwise_sq": gap**2 + 2.0,
            "image_norm": gap + 1.0,
            "text_norm": 1.0,
            "norm_ratio": gap + 1.0,
            "mir": 0.3 + gap / 5,
        }
        self._share(*place, "real", "vqa_accuracy", self.random.uniform(0.7, 0.8))
        for metric, value in numbers.items():
            self.outcomes.append(Outcome(*place, "", metric, value, 0.02, None, None, self._file(place)))

    def _training(self, variant: str, llm: int, arm: str) -> None:
        for stage, steps in (("stage1", 100), ("stage2", 150)):
            for step in range(0, steps + 1, 10):
                grown = min(1.0, step / 60) if stage == "stage1" else 1.0
                gap = 1.8 + (2.0 if arm == "off" else -1.5) * grown + self.random.gauss(0, 0.02)
                self.training.append(
                    TrainingStep(
                        variant, llm, arm, stage, step, gap, gap**2 + 2, gap + 1, 1.0, 3.0 - 2 * grown
                    )
                )

    def _file(self, place: Sequence[Any]) -> str:
        return f"store/measures-{'-'.join(map(str, place[:4]))}/run"


def tables(
    protocol: Mapping[str, Any] = PROTOCOL, *, tax: float = 0.15, effect: float = -0.12, seed: int = 0
) -> Tables:
    return Tables(protocol, tax=tax, effect=effect, seed=seed)


def protocol_with(**changes: Mapping[str, Any]) -> dict[str, Any]:
    """`PROTOCOL` with other values: `llms={"confirmatory": [...]}`."""
    protocol = deepcopy(PROTOCOL)
    for part, values in changes.items():
        protocol[part].update(values)
    return protocol


def provenance_of(protocol: Mapping[str, Any], *, allowed: bool = True) -> dict[str, Any]:
    """What `provenance.json` says."""
    names = [*protocol["arms"]["primary"], *protocol["arms"]["exploratory"]]
    why = "it was edited after its commit 0123: undo the edit."
    return {
        "protocol": {
            **protocol,
            "language_model": {"hidden_size": 128, "num_layers": 2},
            "world": {"seed": 0},
            "sha256": "ab" * 32,
            "commit": "0123" * 10,
            "edited": not allowed,
        },
        "primary": {"allowed": allowed, "why": "It was committed first." if allowed else why},
        "arms": {name: f"What {name} does to the 2 layers." for name in names},
        "pieces": {
            "base": {"pieces": 12, "seconds": 4321.5},
            "stage1": {"pieces": 24, "seconds": 900.0},
            "measures": {"pieces": 52, "seconds": 2500.0},
        },
        "seconds": 7721.5,
        "versions": {"regap": "0.3.0", "torch": "2.13.0"},
        "commits": ["4567" * 10],
        "machine": "Linux x86_64",
        "reported": "89ab" * 10,
    }


def write_study(folder: Path, made: Tables, *, allowed: bool = True) -> Path:
    """A whole folder, as it is before the page is written."""
    from regap_patch.study.trial import analyse

    folder.mkdir(parents=True, exist_ok=True)
    write_outcomes(folder / "outcomes.csv", made.outcomes)
    write_training(folder / "training.csv", made.training)
    found = analyse(made.outcomes, made.training, as_settings(made.protocol))
    (folder / "analysis.json").write_text(json.dumps(found))
    (folder / "provenance.json").write_text(json.dumps(provenance_of(made.protocol, allowed=allowed)))
    return folder


def as_settings(value: Any) -> Any:
    """A protocol's mappings as an analysis reads them: by attributes, but for the variants by name."""
    if not isinstance(value, Mapping):
        return value
    return SimpleNamespace(
        **{name: part if name == "variants" else as_settings(part) for name, part in value.items()}
    )
