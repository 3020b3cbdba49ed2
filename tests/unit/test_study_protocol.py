"""Protocols and arms: every key is checked, and git says what may be called a primary result."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from regap_patch.errors import ConfigError
from regap_patch.gap.losses import LOSSES
from regap_patch.study import protocol as protocol_module
from regap_patch.study.arms import ARMS, Arm, ArmTraining, arm_names, read_arm, read_arms
from regap_patch.study.git_facts import facts_of, is_ancestor
from regap_patch.study.protocol import Protocol, may_report_primary, read_protocol
from regap_patch.study.settings_file import read_mapping
from tests.unit.study_protocols import commit_all, git, write_protocol


def test_a_protocol_is_read_as_it_is_written(tmp_path: Path):
    protocol = read_protocol(write_protocol(tmp_path))
    assert protocol.arms.primary == ("off", "regap")  # no false, as YAML 1.1 would have it
    assert protocol.alignment.learning_rate == pytest.approx(5e-4)  # no text either
    assert protocol.alignment.band == (0.15, 0.30)
    assert protocol.outcome.baseline == "none"
    assert protocol.power.pilot_sd is None
    assert protocol.llms.confirmatory == tuple(range(1, 11))
    assert not protocol.smoke


def test_a_variant_changes_what_it_names_and_nothing_else(tmp_path: Path):
    protocol = read_protocol(write_protocol(tmp_path))
    assert protocol.settings == ["main", "narrow", "lora"]
    assert protocol.setting("main") is protocol
    narrow = protocol.setting("narrow")
    changed = [
        one.name for one in fields(Protocol) if getattr(narrow, one.name) != getattr(protocol, one.name)
    ]
    assert changed == ["alignment"]
    assert (narrow.alignment.context_share, narrow.alignment.stop_at) == (0.0, 0.25)
    with pytest.raises(ConfigError, match=r"no variant 'narow'.*did you mean narrow"):
        protocol.setting("narow")


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("world:", "wrld:", "no key 'wrld' in the protocol toy.yaml: did you mean world"),
        ("twins:", "twin:", "no key 'twin' in the world of the protocol toy.yaml: did you mean twins"),
        (", seed: 0}\nlanguage", "}\nlanguage", "key 'seed' is missing in the world"),
        ("{steps: 10, seed: 0}", "7", "tower of the protocol toy.yaml is 7, which should be a mapping"),
        ("learning_rate: 5e-4", "learning_rate: fast", "learning_rate in the alignment .* 'fast'.* a number"),
        ("documents: 100", "documents: 1.5", "documents in the language_model .* 1.5.* a whole number"),
        ("documents: 100", "documents: true", "documents in the language_model .* True.* a whole number"),
        (
            "about: a protocol for tests",
            "about: 3",
            "about in the protocol toy.yaml is 3, which should be text",
        ),
        ("band: [0.15, 0.30]", "band: [0.15]", "should be a list of 2"),
        ("[none, words, blank, real]", "[none, wrds, blank]", "'wrds': did you mean words"),
        ("[none, words, blank, real]", "none", "image_modes .* should be a list"),
        (
            "[none, words, blank, real]",
            "[none, blank, real]",
            "the image mode 'words', but measures none, bl",
        ),
        (
            "[none, words, blank, real]",
            "[none, words, blank]",
            "vqa_accuracy with real pictures, but asks no",
        ),
        ("blank, real]", "blank, real, blank]", "an image mode twice: none, words, blank, real, blank"),
        ("metric: unsafe_rate", "metric: unsafe_rat", "'unsafe_rat': did you mean unsafe_rate"),
        ("method: lora", "method: loro", "method in the stage2 of the variant 'lora' .* did you mean lora"),
        ("method: lora", "methd: lora", "no key 'methd' in the stage2 of the variant 'lora'.*method"),
        (
            "lora: {stage2:",
            "lora: {stag2:",
            "variant 'lora' of toy.yaml changes 'stag2': did you mean stage2",
        ),
        ("lora: {stage2: {method: lora}}", "lora: 3", "variant 'lora' of toy.yaml is 3"),
        ("  lora:", "  main:", "named 'main'"),
        ("context_share: 0.0", "context_share: 1.5", "variant 'narrow' .* 1.5, which is a share"),
        (
            "exploratory: [pairwise_l2]",
            "exploratory: [pairwse_l2]",
            "arm 'pairwse_l2': did you mean pairwise_l2",
        ),
        ("exploratory: [pairwise_l2]", "exploratory: [regap]", "'regap' both among the primary"),
        ("[off, regap]", "[regap, off]", "compares 'off' with 'regap'"),
        ("[off, regap]", "[off]", "primary in the arms .* list of 2"),
        ("901", "1", "counts the pilot LLM 1 among the confirmatory ones"),
        ("901", "902", "has an LLM twice among the pilot ones"),
        ("exploratory: [1, 2]", "exploratory: [11]", "exploratory LLM 11, which is none"),
        ("8, 9, 10]", "8, 9]", "9 confirmatory LLMs: a primary result needs 10, or say `smoke: true`"),
        ("hidden_size: 128", "hidden_size: 64", "width 64: a primary result needs 128, or say `smoke: true`"),
        ("stop_at: 0.25", "stop_at: 0.5", "stops alignment at 0.5, which does not lie in its band"),
        ("condition: blank", "condition: black", "compares the image mode 'black', but measures none, words"),
        ("condition: blank", "condition: none", "compares the image mode 'none' with itself"),
        ("pictures: 64", "pictures: 0", "world.pictures: 0, which should be above 0"),
        ("margin: 0.05}\nutility", "margin: 0}\nutility", "a margin that is not above 0"),
        ("metric: unsafe_rate", "metric: mir", "compares image modes by mir, which has none: take one of un"),
        ("exploratory: [1, 2]", "exploratory: [1, 1]", "has an LLM twice among the exploratory ones"),
        ("confirmatory: [1,", "confirmatory: [-1,", "has the confirmatory LLM -1: seeds are whole numbers"),
        ("[pairwise_l2]", "[pairwise_l2, pairwise_l2]", "names an exploratory arm twice"),
        ("  lora:", "  7:", "named 7: use letters"),
        ("name: toy", "name: [toy", "is no YAML"),
        ("name: toy", "name: toy\nname: toi", "the key 'name' stands twice"),
    ],
)
def test_what_means_nothing_is_one_sentence(tmp_path: Path, before: str, after: str, sentence: str):
    path = write_protocol(tmp_path, (before, after))
    with pytest.raises(ConfigError, match=sentence) as refused:
        read_protocol(path)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_none_is_a_sentence(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_protocol(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="holds no mapping"):
        read_mapping(tmp_path / "list.yaml")


def test_a_smoke_protocol_may_be_small_and_is_no_result(tmp_path: Path):
    small = ("8, 9, 10]", "8, 9]"), ("hidden_size: 128", "hidden_size: 32"), ("about:", "smoke: true\nabout:")
    path = write_protocol(tmp_path, *small)
    commit_all(tmp_path, "smoke")
    may, why = may_report_primary(read_protocol(path))
    assert not may
    assert "smoke run" in why


def test_the_arms_of_the_study():
    arms = read_arms(arm_names())
    assert arms["off"].stage1 == ArmTraining("off")
    assert arms["regap"].stage1 == ArmTraining("centroid_l2", 1.0)  # the default of `ReGapConfig`, fixed
    assert {arm.stage1.regap_loss for arm in arms.values()} == set(LOSSES)
    assert {arm.surgery for arm in arms.values()} == {"none", "mean_shift", "norm_rescaled", "text_centroid"}
    weights = {(arm.stage1.regap_loss, arm.stage1.regap_weight) for arm in arms.values()}
    assert {
        ("pairwise_l2", 1.0),
        ("pairwise_l2", 0.1),
        ("centroid_l2", 0.1),
        ("centroid_l2", 10.0),
    } <= weights
    assert arms["layernorm"].projector_type == "mlp2x_gelu_ln"
    assert arms["low_lr"].stage1.learning_rate == pytest.approx(3e-4)
    assert [name for name, arm in arms.items() if not arm.own_stage1] == [
        *("mean_shift", "norm_rescaled", "random_tokens", "text_centroid")
    ]


def test_regap_is_the_default_of_the_patch():
    from regap_patch import ReGapConfig

    training, config = read_arm("regap").stage1, ReGapConfig()
    assert (training.regap_loss, training.regap_weight) == (config.loss, config.weight)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: mine\nabout: x\nstage_1: {}", "no key 'stage_1' in the arm mine.yaml: did you mean stage1"),
        ("name: mine\nabout: x\nstage1: {regap_los: off}", "did you mean regap_loss"),
        (
            "name: mine\nabout: x\nstage1: {regap_loss: centroid_l1}",
            "'centroid_l1': did you mean centroid_l2",
        ),
        ("name: mine\nabout: x\nstage1: {regap_loss: off, regap_weight: -1}", "negative weight"),
        ("name: mine\nabout: x\nsurgery: mean_shft", "did you mean mean_shift"),
        (
            "name: mine\nabout: x\nsurgery: mean_shift\nstage1: {regap_loss: centroid_l2}",
            "cannot train another",
        ),
        (
            "name: mine\nabout: x\nsurgery: mean_shift\nwords: random_tokens",
            "changes both projector and words",
        ),
        ("name: yours\nabout: x", "names itself 'yours'"),
        ("name: mine", "'about' is missing"),
    ],
)
def test_an_arm_that_means_nothing_is_one_sentence(tmp_path: Path, text: str, sentence: str):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_arm("mine", tmp_path)


def test_an_unknown_arm_brings_the_nearest():
    with pytest.raises(ConfigError, match="no arm 'norm_mach': did you mean norm_match"):
        read_arm("norm_mach")
    assert ARMS.is_dir()
    assert isinstance(read_arm("off"), Arm)


def test_git_knows_commits_edits_and_ancestors(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("1")
    assert facts_of(file).commit is None
    first = commit_all(tmp_path, "first")
    (tmp_path / "other").write_text("1")
    second = commit_all(tmp_path, "second")
    assert (facts_of(file).commit, facts_of(file).edited) == (first, False)
    assert is_ancestor(first, second, tmp_path)
    assert is_ancestor(first, first, tmp_path)
    assert not is_ancestor(second, first, tmp_path)
    assert not is_ancestor("0" * 40, first, tmp_path)
    file.write_text("2")
    assert facts_of(file).edited
    git(tmp_path, "add", "file")
    assert facts_of(file).edited, "staged is not committed"
    file.write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "update-index", "--assume-unchanged", "file")
    file.write_text("2")
    assert facts_of(file).edited, "a flag of the index hides no edit"


def test_a_primary_result_needs_an_older_unedited_protocol(tmp_path: Path):
    before = commit_all(tmp_path, "before")
    path = write_protocol(tmp_path)
    protocol = read_protocol(path)
    assert "never committed" in may_report_primary(protocol)[1]
    written = commit_all(tmp_path, "protocol")
    assert may_report_primary(protocol) == (
        True,
        f"The protocol toy was committed as {written}, and no result is there yet.",
    )
    (tmp_path / "code").touch()
    results = commit_all(tmp_path, "code")
    made = {"made_under": protocol.sha256, "commits": [results, written]}
    assert may_report_primary(protocol, **made) == (
        True,
        f"The protocol toy was committed as {written}, before any result.",
    )
    assert not may_report_primary(protocol, made_under=protocol.sha256, commits=[results, before])[0]
    may, why = may_report_primary(protocol, made_under=protocol.sha256, commits=[results, written + "+"])
    assert not may
    assert f"made at {written} with changes that were not committed" in why
    may, why = may_report_primary(protocol, made_under=protocol.sha256, commits=[None])
    assert not may
    assert "does not say at which commit" in why
    may, why = may_report_primary(protocol, made_under="another", commits=[results])
    assert not may
    assert "another text" in why

    path.write_text(path.read_text().replace("margin: 0.05}\nutility", "margin: 0.10}\nutility"))
    may, why = may_report_primary(read_protocol(path), **made)
    assert not may
    assert "was edited after its commit" in why
    edited = commit_all(tmp_path, "a wider margin")
    again = read_protocol(path)
    may, why = may_report_primary(again, made_under=again.sha256, commits=[results])
    assert not may, "committing the edit does not make it older than the results"
    assert f"committed as {edited}, which is no ancestor of {results}" in why


def test_a_primary_result_needs_primary_arms_that_are_older_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Their files say what the protocol's words off and regap mean."""
    shutil.copytree(ARMS, tmp_path / "arms")
    monkeypatch.setattr(protocol_module, "ARMS", tmp_path / "arms")
    protocol = read_protocol(write_protocol(tmp_path))
    results = commit_all(tmp_path, "protocol and arms")
    made = {"made_under": protocol.sha256, "commits": [results]}
    (tmp_path / "arms" / "pairwise_l2.yaml").write_text("an exploratory one")
    assert may_report_primary(protocol, **made)[0]
    arm = tmp_path / "arms" / "regap.yaml"
    arm.write_text(arm.read_text().replace("regap_weight: 1.0", "regap_weight: 10.0"))
    assert f"{arm} was edited after its commit {results}" in may_report_primary(protocol, **made)[1]
    edited = commit_all(tmp_path, "ten times the weight")
    assert (
        f"{arm} was committed as {edited}, which is no ancestor of" in may_report_primary(protocol, **made)[1]
    )
    assert may_report_primary(protocol, made_under=protocol.sha256, commits=[edited])[0]
