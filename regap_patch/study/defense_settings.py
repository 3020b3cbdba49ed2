"""The section `defenses` of a protocol: stacks that stand around the models of a study, and what is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from regap_patch.defenses.table import defense_names
from regap_patch.records import ImageMode

from .settings_file import hint
from .store import REPOSITORY

CMRM, VECTORS = "cmrm", "cmrm.vectors"


@dataclass(frozen=True, slots=True)
class Stacked:
    """A defence stack around the fine-tuned model of every arm.

    Attributes:
        name: in tables, beside the arm's: `off+cmrm`.
        about: one line for tables.
        stack: as `regap eval run --defense` takes it; empty for the model alone.
        args: as `--defense_args` takes them, one an item; a file is named by its place in the repository.
            What a fit leaves is added to them.
    """

    name: str
    about: str
    stack: str = ""
    args: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of its defences."""
        return tuple(self.stack.split("+")) if self.stack else ()

    @property
    def fitted(self) -> bool:
        """Whether it needs vectors of CMRM that are fitted to the checkpoint."""
        return CMRM in self.names and "cmrm.of=sample" not in self.args

    def files(self) -> dict[str, Path]:
        """Files of the repository among the settings, by their place in it."""
        values = (arg.partition("=")[2] for arg in self.args)
        return {value: REPOSITORY / value for value in values if value and (REPOSITORY / value).is_file()}

    def settings(self) -> list[str]:
        """The settings, with files where they lie."""
        files = self.files()
        pairs = (arg.partition("=") for arg in self.args)
        return [f"{name}={files.get(value, value)}" for name, _, value in pairs]


@dataclass(frozen=True, slots=True)
class DefensesSetting:
    """What is asked of defended models.

    Attributes:
        image_modes: what stands in the picture's place.
        stacks: first the model alone, with which the others are compared.
    """

    image_modes: tuple[ImageMode, ...]
    stacks: tuple[Stacked, ...]

    @property
    def fitted(self) -> bool:
        """Whether one of them is fitted to each checkpoint."""
        return any(stacked.fitted for stacked in self.stacks)


def faults_of_defenses(defenses: DefensesSetting | None, *, exploratory: bool) -> Iterator[str]:
    """What cannot be, as ends of a sentence about the protocol.

    Args:
        defenses: the section; None for a protocol without.
        exploratory: whether all of the protocol is.
    """
    if defenses is None:
        return
    names, modes = [one.name for one in defenses.stacks], defenses.image_modes
    if not exploratory:
        yield "has defences, which are exploratory arms with a page of their own: say `exploratory: true`."
    if not names or defenses.stacks[0].stack:
        yield "has no model alone to compare defences with: name one without a stack first."
    if len(set(names)) < len(names):
        yield "names a defence twice."
    if len(set(modes)) < len(modes) or not modes:
        yield f"asks defended models in the image modes {', '.join(modes) or 'of nobody'}: name each once."
    if "real" not in modes:
        yield "asks defended models nothing about real pictures, which says what a defence costs: add real."
    for one in defenses.stacks:
        yield from _faults_of_stack(one)


def _faults_of_stack(one: Stacked) -> Iterator[str]:
    if not one.name.replace("_", "").isalnum():
        yield f"names a defence {one.name!r}: use letters, digits and low lines."
    for part in one.names:
        if part not in defense_names():
            yield f"has the defence {part!r} in {one.name}: {hint(part, defense_names())}"
    for arg in one.args:
        if "=" not in arg or arg.partition(".")[0] not in one.names:
            yield f"gives {one.name} the setting {arg!r}: write NAME.SETTING=value of its own defences."
        if arg.startswith(VECTORS):
            yield f"gives {one.name} vectors, which are fitted to each checkpoint: leave {VECTORS} out."
