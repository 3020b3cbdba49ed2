"""The protocol of a study: everything that is fixed before its first result, in one YAML file.

The file is committed before the study runs. Results that are older than that commit, or that were made under
another text of the file, are no primary result: `may_report_primary` says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from regap_patch.errors import ConfigError

from .arms import ARMS, read_arms
from .git_facts import FileFacts, facts_of, is_ancestor
from .protocol_sections import (
    AlignmentSetting,
    ArmNames,
    LanguageModels,
    LanguageModelSetting,
    MeasuresSetting,
    Outcome,
    PowerPlan,
    Stage1Setting,
    Stage2Setting,
    TowerSetting,
    Utility,
    WorldSetting,
)
from .settings_file import build, hint, read_mapping

MAIN = "main"
VARIED = ("world", "language_model", "alignment", "tower", "stage1", "stage2", "measures")
FEWEST_LLMS = 10
NARROWEST = 128


@dataclass(frozen=True, slots=True)
class Protocol:
    """A whole protocol.

    Attributes:
        name: in tables and folders.
        about: one line.
        world: see its class, like the sections below.
        language_model: see its class.
        alignment: see its class.
        tower: see its class.
        stage1: see its class.
        stage2: see its class.
        measures: see its class.
        arms: see its class.
        llms: see its class.
        outcome: see its class.
        utility: see its class.
        power: see its class.
        path: of its file.
        text: of its file.
        variants: by name, what an exploratory setting changes in the sections of `VARIED`.
        smoke: whether it only shows that the parts work together; nothing of it is a result.
    """

    name: str
    about: str
    world: WorldSetting
    language_model: LanguageModelSetting
    alignment: AlignmentSetting
    tower: TowerSetting
    stage1: Stage1Setting
    stage2: Stage2Setting
    measures: MeasuresSetting
    arms: ArmNames
    llms: LanguageModels
    outcome: Outcome
    utility: Utility
    power: PowerPlan
    path: Path
    text: str
    variants: dict = field(default_factory=dict)  # type: ignore[type-arg]
    smoke: bool = False

    @property
    def sha256(self) -> str:
        """Of its file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def settings(self) -> list[str]:
        """Names of its settings: `main`, then the variants."""
        return [MAIN, *self.variants]

    def setting(self, name: str) -> Protocol:
        """The protocol as a variant changes it; `main` is the protocol itself.

        Raises:
            ConfigError: there is no such variant, or it changes what it cannot.
        """
        if name == MAIN:
            return self
        if name not in self.variants:
            raise ConfigError(f"There is no variant {name!r} in {self.path}: {hint(name, self.settings)}")
        where = f"variant {name!r} of {self.path.name}"
        changed: dict[str, Any] = {}
        for section, values in _mapping(self.variants[name], where).items():
            if section not in VARIED:
                raise ConfigError(f"The {where} changes {section!r}: {hint(section, VARIED)}")
            before = getattr(self, section)
            plain = {one.name: getattr(before, one.name) for one in fields(before)}
            plain = {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
            inner = f"{section} of the {where}"
            changed[section] = build(type(before), plain | _mapping(values, inner), inner)
        return replace(self, **changed)


def _mapping(found: Any, where: str) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise ConfigError(f"The {where} is {found!r}, which should be a mapping of names to values.")
    return dict(found)


def read_protocol(path: Path, *, arms: Path = ARMS) -> Protocol:
    """A protocol from its file, every key and value checked.

    Args:
        path: of the YAML file.
        arms: folder of the arms that it may name.

    Raises:
        ConfigError: one sentence about the first thing that is wrong.
    """
    found = read_mapping(path)
    text = path.read_text(encoding="utf-8")
    protocol = build(Protocol, found, f"protocol {path.name}", path=path, text=text)
    read_arms((*protocol.arms.primary, *protocol.arms.exploratory), arms)
    for fault in (*_faults_of_setting(protocol), *_faults(protocol)):
        raise ConfigError(f"The protocol {path} {fault}")
    for name in protocol.variants:
        if name == MAIN or not name.replace("_", "").replace("-", "").isalnum():
            raise ConfigError(
                f"A variant of {path} is named {name!r}: use letters, digits and dashes, not main."
            )
        for fault in _faults_of_setting(protocol.setting(name)):
            raise ConfigError(f"The variant {name!r} of {path} {fault}")
    return protocol


def _faults_of_setting(protocol: Protocol) -> Iterator[str]:
    """What means nothing in the sections that a variant may change, as ends of a sentence."""
    for section in VARIED:
        for name, value in _numbers(getattr(protocol, section)):
            if value < 0 or (
                value == 0 and name not in {"seed", "context_share", "twins", "instruction_share"}
            ):
                yield f"says {section}.{name}: {value}, which should be above 0."
    alignment, (low, high) = protocol.alignment, protocol.alignment.band
    if protocol.stage2.instruction_share > 1:
        yield f"says stage2.instruction_share: {protocol.stage2.instruction_share}, which is a share, 0 to 1."
    if alignment.context_share > 1:
        yield f"says alignment.context_share: {alignment.context_share}, which is a share, from 0 to 1."
    if not low <= alignment.stop_at <= high <= 1:
        yield f"stops alignment at {alignment.stop_at}, which does not lie in its band from {low} to {high}."
    modes = protocol.measures.image_modes
    for mode in (protocol.outcome.condition, protocol.outcome.baseline):
        if mode not in modes:
            yield f"compares the image mode {mode!r}, but measures {', '.join(modes)} alone: add it there."


def _numbers(section: Any) -> Iterator[tuple[str, float]]:
    for one in fields(section):
        value = getattr(section, one.name)
        if isinstance(value, (int, float)):
            yield one.name, value


def _faults(protocol: Protocol) -> Iterator[str]:
    """What cannot be, or could not give a primary result, as ends of a sentence."""
    llms, arms, outcome = protocol.llms, protocol.arms, protocol.outcome
    for part, seeds in (("pilot", llms.pilot), ("confirmatory", llms.confirmatory)):
        if len(set(seeds)) < len(seeds):
            yield f"names a {part} LLM twice."
    if not llms.confirmatory:
        yield "names no confirmatory LLM."
    if shared := sorted({*llms.pilot} & {*llms.confirmatory}):
        yield f"counts the pilot LLM {shared[0]} among the confirmatory ones: leave it out of one of the two."
    if extra := sorted({*llms.exploratory} - {*llms.confirmatory}):
        yield f"has the exploratory LLM {extra[0]}, which is none of the confirmatory ones: they are shared."
    if both := sorted({*arms.primary} & {*arms.exploratory}):
        yield f"has the arm {both[0]!r} both among the primary and the exploratory ones."
    if arms.primary[0] != "off" or arms.primary[1] == "off":
        yield f"compares {arms.primary[1]!r} with {arms.primary[0]!r}: name off first and another arm second."
    if not 0.5 <= outcome.level < 1 or outcome.margin <= 0 or protocol.utility.margin <= 0:
        yield "has a level outside of .5 to 1, or a margin that is not above 0."
    if outcome.condition == outcome.baseline:
        yield f"compares the image mode {outcome.condition!r} with itself."
    if protocol.smoke:
        return
    remedy = "or say `smoke: true`, and nothing of it is a result."
    count, width = len(llms.confirmatory), protocol.language_model.hidden_size
    if count < FEWEST_LLMS:
        yield f"has {count} confirmatory LLMs: a primary result needs {FEWEST_LLMS}, {remedy}"
    if width < NARROWEST:
        yield f"has LLMs of width {width}: a primary result needs {NARROWEST}, {remedy}"


def may_report_primary(
    protocol: Protocol, *, made_under: str | None = None, commits: Sequence[str | None] = ()
) -> tuple[bool, str]:
    """Whether results may be called primary, and a sentence that says why.

    Args:
        protocol: as its file is now.
        made_under: SHA-256 of the protocol that the results were made under, from `study.json`; None if there
            are none yet.
        commits: of the code when each primary measurement was made, from `node.json`.
    """
    facts = facts_of(protocol.path)
    for fault in _why_not(protocol, facts, made_under, commits):
        return False, f"No primary result can be reported: {fault}"
    before = "before any result" if commits else "and no result is there yet"
    return True, f"The protocol {protocol.name} was committed as {facts.commit}, {before}."


def _why_not(
    protocol: Protocol, facts: FileFacts, made_under: str | None, commits: Sequence[str | None]
) -> Iterator[str]:
    path = protocol.path
    if protocol.smoke:
        yield f"{path} is a smoke run, which shows that the parts work together and nothing else."
    if facts.commit is None:
        yield f"{path} was never committed, so nobody can see that it is older than the results."
    if facts.edited:
        yield f"{path} was edited after its commit {facts.commit}: undo the edit."
    if made_under not in (None, protocol.sha256):
        yield f"the results were made under another text of {path}: run the study again."
    for commit in commits:
        if commit is None:
            yield "a result does not say at which commit it was made."
        elif not is_ancestor(str(facts.commit), commit.rstrip("+"), path.resolve().parent):
            yield (
                f"{path} was committed as {facts.commit}, which is no ancestor of {commit}, at which a "
                "result was made: run the study again."
            )
