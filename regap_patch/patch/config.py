"""What can be set, in one place: Python, `regap.json` and the `--regap_*` flags all read it from here.

The paper publishes neither the formula of its surrogate, nor the rule for alpha, nor the length of the
warm-up: the loss, the calibration and its steps are our choices, with the alternatives selectable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from regap_patch.errors import ConfigError
from regap_patch.gap.catalog import LOSSES_IN_WORDS

WARMUP = "warmup"
_CALIBRATIONS = ("ratio", "gradient")


def _setting(default: Any, words: str) -> Any:
    return field(default=default, metadata={"help": words})


@dataclass(frozen=True)
class ReGapConfig:
    """Settings of the regulariser; checked when made.

    Raises:
        ConfigError: for an unknown name, a negative number, or `alpha` together with a `weight`.
    """

    loss: str = _setting(
        "centroid_l2", "what is made small: " + "; ".join(f"{k}: {v}" for k, v in LOSSES_IN_WORDS.items())
    )
    weight: float = _setting(1.0, "how much the gap counts beside the language model's loss; 0 records only")
    calibration: str = _setting(
        "ratio",
        "how alpha is measured: ratio of the two losses, or gradient: of the norms of their gradients at "
        "the projector",
    )
    calibration_steps: int | str = _setting(
        WARMUP,
        "optimizer steps during which alpha is measured and the regulariser is off: a number, or the "
        "trainer's warm-up",
    )
    ramp_steps: int = _setting(
        0,
        "optimizer steps after the calibration during which the coefficient grows, in equal parts, to alpha; "
        "0 starts with all of it",
    )
    alpha: float | None = _setting(None, "the coefficient of the gap, set by hand instead of measured")
    allow_finetune: bool = _setting(False, "act although parameters of the language model train")

    def __post_init__(self) -> None:
        """Refuse what means nothing before anything is mutated."""
        if self.loss not in LOSSES_IN_WORDS:
            raise ConfigError(f"loss={self.loss!r} is not known: choose one of {', '.join(LOSSES_IN_WORDS)}.")
        if self.calibration not in _CALIBRATIONS:
            raise ConfigError(
                f"calibration={self.calibration!r} is not known: choose one of {', '.join(_CALIBRATIONS)}, "
                f"or set alpha."
            )
        if not _is_number(self.weight) or not 0 <= self.weight < float("inf"):
            raise ConfigError(
                f"weight={self.weight!r} must be a number of at least 0 (0 switches the regulariser off)."
            )
        if self.alpha is not None and (not _is_number(self.alpha) or not 0 <= self.alpha < float("inf")):
            raise ConfigError(f"alpha={self.alpha!r} must be a number of at least 0, or None to measure it.")
        if self.alpha is not None and self.weight != 1.0:
            raise ConfigError(
                f"weight={self.weight} scales a measured alpha, but alpha={self.alpha} was set by hand: "
                f"give one of the two."
            )
        steps = self.calibration_steps
        if steps != WARMUP and not (isinstance(steps, int) and not isinstance(steps, bool) and steps >= 1):
            raise ConfigError(f"calibration_steps={steps!r} must be a number of at least 1, or {WARMUP!r}.")
        if not isinstance(self.ramp_steps, int) or isinstance(self.ramp_steps, bool) or self.ramp_steps < 0:
            raise ConfigError(
                f"ramp_steps={self.ramp_steps!r} must be a whole number of at least 0 (0 for no ramp)."
            )
        if not isinstance(self.allow_finetune, bool):
            raise ConfigError(f"allow_finetune={self.allow_finetune!r} must be True or False.")

    @property
    def acts(self) -> bool:
        """Whether the regulariser will ever change a loss; otherwise only statistics are recorded."""
        return self.loss != "off" and (self.weight if self.alpha is None else self.alpha) != 0

    def to_dict(self) -> dict[str, Any]:
        """As it is written to `regap.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReGapConfig:
        """The config of a `regap.json`.

        Raises:
            ConfigError: for a key that is no setting.
        """
        known = [setting.name for setting in fields(cls)]
        strange = sorted(set(values) - set(known))
        if strange:
            raise ConfigError(
                f"{', '.join(strange)} is no setting of ReGap: the settings are {', '.join(known)}."
            )
        return cls(**values)

    @classmethod
    def from_text(cls, values: Mapping[str, str]) -> ReGapConfig:
        """The config of command line flags, each given as text.

        Raises:
            ConfigError: for a key that is no setting, or text that is no value of it.
        """
        read: dict[str, Any] = {}
        for name, text in values.items():
            try:
                read[name] = _READERS.get(name, str)(text)
            except ValueError:  # noqa: PERF203
                raise ConfigError(f"{name}={text!r} cannot be read: {_EXPECTED[name]} is expected.") from None
        return cls.from_dict(read)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _read_flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_READERS: dict[str, Callable[[str], Any]] = {
    "weight": float,
    "calibration_steps": lambda text: text if text == WARMUP else int(text),
    "ramp_steps": int,
    "alpha": lambda text: None if text.lower() == "none" else float(text),
    "allow_finetune": _read_flag,
}
_EXPECTED = {
    "weight": "a number",
    "calibration_steps": f"a whole number or {WARMUP!r}",
    "ramp_steps": "a whole number",
    "alpha": "a number or none",
    "allow_finetune": "True or False",
}
