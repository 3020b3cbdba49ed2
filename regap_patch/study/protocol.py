"""The protocol of a study: everything that is fixed before its first result, in one YAML file.

The file is committed before the study runs, and so are the files of the arms that it compares. Results that
are older than these commits, or that were made under another text, are no primary result:
`may_report_primary` says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from regap_patch.errors import ConfigError

from .arms import ARMS, read_arms
from .defense_settings import DefensesSetting, faults_of_defenses
from .git_facts import facts_of, git, is_ancestor
from .outcome_columns import ASKED, TEXT_CONDITIONS
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
        exploratory: whether none of it is a primary result, so that it may have few LLMs.
        defenses: that stand around the models of every arm; None for a study without.
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
    exploratory: bool = False
    defenses: DefensesSetting | None = None

    @property
    def sha256(self) -> str:
        """Of its file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def part(self) -> str:
        """Part of the study that its result rests on, see `Node.part`."""
        return "exploratory" if self.exploratory else "primary"

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
        if name == MAIN or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", str(name)):
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
    modes, outcome = protocol.measures.image_modes, protocol.outcome
    if len(set(modes)) < len(modes):
        yield f"measures an image mode twice: {', '.join(modes)}."
    for mode in (outcome.condition, outcome.baseline, *TEXT_CONDITIONS):  # the last two are the gate's
        if mode not in modes:
            yield f"compares the image mode {mode!r}, but measures {', '.join(modes)} alone: add it there."
    if protocol.utility.metric in (*ASKED, "vqa_accuracy") and "real" not in modes:
        yield f"measures {protocol.utility.metric} with real pictures, but asks {', '.join(modes)}: add real."


def _numbers(section: Any) -> Iterator[tuple[str, float]]:
    for one in fields(section):
        value = getattr(section, one.name)
        if isinstance(value, (int, float)):
            yield one.name, value


def _faults(protocol: Protocol) -> Iterator[str]:
    """What cannot be, or could not give a primary result, as ends of a sentence."""
    yield from _faults_of_llms(protocol.llms)
    arms, outcome = protocol.arms, protocol.outcome
    if both := sorted({*arms.primary} & {*arms.exploratory}):
        yield f"has the arm {both[0]!r} both among the primary and the exploratory ones."
    if len(set(arms.exploratory)) < len(arms.exploratory):
        yield "names an exploratory arm twice."
    if arms.primary[0] != "off" or arms.primary[1] == "off":
        yield f"compares {arms.primary[1]!r} with {arms.primary[0]!r}: name off first and another arm second."
    if not 0.5 <= outcome.level < 1 or outcome.margin <= 0 or protocol.utility.margin <= 0:
        yield "has a level outside of .5 to 1, or a margin that is not above 0."
    if outcome.metric not in ASKED:
        yield f"compares image modes by {outcome.metric}, which has none: take one of {', '.join(ASKED)}."
    if outcome.condition == outcome.baseline:
        yield f"compares the image mode {outcome.condition!r} with itself."
    yield from faults_of_defenses(protocol.defenses, exploratory=protocol.exploratory)
    if not (protocol.smoke or protocol.exploratory):
        yield from _faults_of_a_trial(protocol)


def _faults_of_llms(llms: LanguageModels) -> Iterator[str]:
    for part, seeds in asdict(llms).items():
        if len(set(seeds)) < len(seeds):
            yield f"has an LLM twice among the {part} ones."
        if min(seeds, default=0) < 0:
            yield f"has the {part} LLM {min(seeds)}: seeds are whole numbers from 0 on."
    if not llms.confirmatory:
        yield "names no confirmatory LLM."
    if shared := sorted({*llms.pilot} & {*llms.confirmatory}):
        yield f"counts the pilot LLM {shared[0]} among the confirmatory ones: leave it out of one of the two."
    if extra := sorted({*llms.exploratory} - {*llms.confirmatory}):
        yield f"has the exploratory LLM {extra[0]}, which is none of the confirmatory ones: they are shared."


def _faults_of_a_trial(protocol: Protocol) -> Iterator[str]:
    """What a protocol may do that can give no primary result."""
    remedy = "or say `smoke: true`, and nothing of it is a result, or `exploratory: true`."
    count, width = len(protocol.llms.confirmatory), protocol.language_model.hidden_size
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
    for fault in _why_not(protocol, made_under, commits):
        return False, f"No primary result can be reported: {fault}"
    before = "before any result" if commits else "and no result is there yet"
    written = facts_of(protocol.path).commit
    return True, f"The protocol {protocol.name} was committed as {written}, {before}."


def _why_not(protocol: Protocol, made_under: str | None, commits: Sequence[str | None]) -> Iterator[str]:
    if protocol.smoke:
        yield f"{protocol.path} is a smoke run, which shows that the parts work together and nothing else."
    if protocol.exploratory:
        yield f"{protocol.path} says that all of it is exploratory."
    fixed = {path: facts_of(path) for path in _fixed_files(protocol)}
    for path, facts in fixed.items():
        if facts.commit is None:
            yield f"{path} was never committed, so nobody can see that it is older than the results."
        if facts.edited:
            yield f"{path} was edited after its commit {facts.commit}: undo the edit."
    if made_under not in (None, protocol.sha256):
        yield f"the results were made under another text of {protocol.path}: run the study again."
    for commit in commits:
        if commit is None:
            yield "a result does not say at which commit it was made."
            continue
        if commit.endswith("+"):
            yield f"a result was made at {commit[:-1]} with changes that were not committed: run it again."
            continue
        for path, facts in fixed.items():
            if not is_ancestor(str(facts.commit), commit, path.resolve().parent):
                yield (
                    f"{path} was committed as {facts.commit}, which is no ancestor of {commit}, at which a "
                    "result was made: run the study again."
                )


def _fixed_files(protocol: Protocol) -> Iterator[Path]:
    """The protocol, and what it means by the arms that it compares.

    Beside a protocol of another repository they need no look: results are made by the code that the arms
    come with, so their commits are none of that repository, and are refused for it.
    """
    yield protocol.path
    repository = git(protocol.path.resolve().parent, "rev-parse", "--show-toplevel")
    for name in protocol.arms.primary:
        path = ARMS / f"{name}.yaml"
        if repository and path.resolve().is_relative_to(repository):
            yield path
