"""What is asked together, as data: a smoke test, an afternoon on one GPU, and all of it."""

from __future__ import annotations

from dataclasses import dataclass

from regap_patch.errors import ConfigError
from regap_patch.records import ImageMode

CONTRAST: tuple[ImageMode, ...] = ("none", "words", "blank", "black", "noise")
WITH_PICTURES: tuple[ImageMode, ...] = (*CONTRAST, "real")
EVERY: tuple[ImageMode, ...] = (*CONTRAST, "grey", "irrelevant", "real")
AS_IS: tuple[ImageMode, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One benchmark of a profile; an empty tuple of image modes asks its items as they are."""

    benchmark: str
    image_modes: tuple[ImageMode, ...] = AS_IS
    split: str | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """A choice of benchmarks and settings; flags take precedence over it.

    Attributes:
        about: in a line.
        parts: benchmarks.
        batch_size: questions at once.
        max_new_tokens: of an answer; 512 is the usual cap of safety evaluations.
    """

    about: str
    parts: tuple[Part, ...]
    batch_size: int
    max_new_tokens: int


PROFILES = {
    "smoke": Profile(
        "the picture world that can refuse, on a CPU, in under 3 minutes",
        (Part("world", WITH_PICTURES),),
        batch_size=32,
        max_new_tokens=24,
    ),
    "quick": Profile(
        "small sets of every kind: an afternoon on one GPU",
        (
            Part("figstep", (*CONTRAST, "real"), split="tiny"),
            Part("mm_safetybench", (*CONTRAST, "real"), split="tiny"),
            Part("jailbreakbench", CONTRAST),
            Part("advbench", CONTRAST, limit=100),
            Part("xstest", ("none", "blank")),
            Part("mossbench", ("none", "real")),
            Part("pope", limit=500),
            Part("mme"),
        ),
        batch_size=8,
        max_new_tokens=512,
    ),
    "paper": Profile(
        "every benchmark whole, in every image mode",
        (
            *(Part(name, EVERY) for name in ("mm_safetybench", "figstep", "vlsafe", "vlguard")),
            *(Part(name, (*CONTRAST, "grey")) for name in ("advbench", "jailbreakbench", "xstest")),
            Part("mossbench", EVERY),
            *(Part(name) for name in ("pope", "scienceqa", "textvqa", "mme")),
        ),
        batch_size=8,
        max_new_tokens=512,
    ),
}


def profile_of(name: str) -> Profile:
    """The profile of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROFILES:
        raise ConfigError(f"The profile {name!r} was asked for, but there are {', '.join(PROFILES)}.")
    return PROFILES[name]
