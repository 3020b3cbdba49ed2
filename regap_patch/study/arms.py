"""The arms of a study: what each does to the projector, one YAML file each in `scripts/study/arms`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from regap_patch.errors import ConfigError
from regap_patch.gap.catalog import LOSSES_IN_WORDS

from .settings_file import build, hint, read_mapping
from .store import REPOSITORY

ARMS = REPOSITORY / "scripts" / "study" / "arms"


@dataclass(frozen=True, slots=True)
class ArmTraining:
    """What an arm changes while stage 1 trains the projector.

    Attributes:
        regap_loss: as `--regap_loss` of the launcher.
        regap_weight: as `--regap_weight`.
        learning_rate: in place of the protocol's; None for the protocol's.
    """

    regap_loss: str = "off"
    regap_weight: float = 1.0
    learning_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm; what it does not name is as in `off`.

    Attributes:
        name: of its file too.
        about: one line for tables.
        stage1: how stage 1 differs.
        projector_type: `mlp2x_gelu`, or with a LayerNorm behind it `mlp2x_gelu_ln`.
        surgery: what is done to the finished projector of `off` instead of training another one.
        words: what stands in a picture's place in mode `words`: its scene, or tokens drawn at random.
    """

    name: str
    about: str
    stage1: ArmTraining = field(default_factory=ArmTraining)
    projector_type: Literal["mlp2x_gelu", "mlp2x_gelu_ln"] = "mlp2x_gelu"
    surgery: Literal["none", "mean_shift", "norm_rescaled", "text_centroid"] = "none"
    words: Literal["scene", "random_tokens"] = "scene"

    @property
    def own_stage1(self) -> bool:
        """Whether it trains a projector of its own; surgeries and probes take the one of `off`."""
        return self.surgery == "none" and self.words == "scene"


def arm_names(folder: Path = ARMS) -> list[str]:
    """All arms that there are."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_arm(name: str, folder: Path = ARMS) -> Arm:
    """The arm of that name.

    Raises:
        ConfigError: there is none, or its file says what means nothing.
    """
    known = arm_names(folder)
    if name not in known:
        raise ConfigError(f"There is no arm {name!r}: {hint(name, known)}")
    path = folder / f"{name}.yaml"
    arm = build(Arm, read_mapping(path), f"arm {path.name}")
    if arm.name != name:
        raise ConfigError(f"The arm in {path} names itself {arm.name!r}: name and file are one.")
    training = arm.stage1
    if training.regap_loss not in LOSSES_IN_WORDS:
        raise ConfigError(
            f"The arm {name!r} asks for the loss {training.regap_loss!r}: "
            f"{hint(training.regap_loss, LOSSES_IN_WORDS)}"
        )
    if training.regap_weight < 0 or (training.learning_rate is not None and training.learning_rate <= 0):
        raise ConfigError(f"The arm {name!r} has a negative weight, or a learning rate that is not above 0.")
    if arm.surgery != "none" and arm.words != "scene":
        raise ConfigError(
            f"The arm {name!r} changes both projector and words: leave one of them to another arm."
        )
    if not arm.own_stage1 and (training != ArmTraining() or arm.projector_type != "mlp2x_gelu"):
        raise ConfigError(
            f"The arm {name!r} takes the projector of 'off', so it cannot train another: leave stage1 and "
            "projector_type out."
        )
    return arm


def read_arms(names: Iterable[str], folder: Path = ARMS) -> dict[str, Arm]:
    """Several, by name, in that order."""
    return {name: read_arm(name, folder) for name in names}
