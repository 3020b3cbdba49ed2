"""Defences in a protocol: what it may say, and which pieces follow from it."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from regap_patch.errors import ConfigError
from regap_patch.study.branches import branches
from regap_patch.study.defense_anchors import write_anchors
from regap_patch.study.protocol import Protocol, may_report_primary, read_protocol
from regap_patch.study.recipes import draw_items
from regap_patch.study.refusal_benchmark import make_benchmark
from regap_patch.study.store import REPOSITORY, Node
from tests.integration.written_defenses import CHANGES, STACKS
from tests.unit.study_protocols import write_protocol

FILES = REPOSITORY / "scripts" / "study"


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    return read_protocol(write_protocol(tmp_path_factory.mktemp("protocol"), *CHANGES))


@pytest.fixture(scope="module")
def nodes(protocol: Protocol, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Node]:
    return {node.name: node for node in branches(protocol, tmp_path_factory.mktemp("store"))}


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("exploratory: true\n", "", "has defences, which are exploratory arms .*: say `exploratory: true`"),
        (
            "{name: none, about: the model alone}",
            "{name: a, about: b, stack: ecso}",
            "no model alone to compare",
        ),
        ("name: ecso", "name: cmrm", "names a defence twice"),
        ("name: ecso", "name: e+o", "names a defence 'e\\+o': use letters"),
        ("stack: ecso", "stack: esco", "has the defence 'esco' in ecso: did you mean ecso"),
        ("about: a check", "about: a check, args: [cmrm.alpha=2]", "gives ecso the setting 'cmrm.alpha=2'"),
        ("about: a check", "about: a check, args: [ecso.words]", "gives ecso the setting 'ecso.words'"),
        ("about: moved states", "about: b, args: [cmrm.vectors=v]", "gives cmrm vectors, which are fitted"),
        ("words, blank, real]\n  stacks", "words, blank]\n  stacks", "nothing about real pictures"),
        (
            "words, blank, real]\n  stacks",
            "real, real]\n  stacks",
            "image modes none, real, real: name each once",
        ),
        ("stack: ecso,", "stck: ecso,", "no key 'stck' in the stacks .* did you mean stack"),
    ],
)
def test_what_means_nothing_is_one_sentence(tmp_path: Path, before: str, after: str, sentence: str):
    path = write_protocol(tmp_path, *CHANGES, (before, after))
    with pytest.raises(ConfigError, match=sentence) as refused:
        read_protocol(path)
    assert "\n" not in str(refused.value)


def test_an_exploratory_protocol_may_have_few_llms_and_no_primary_result(protocol: Protocol):
    assert (protocol.llms.confirmatory, protocol.part) == ((1, 2, 3), "exploratory")
    assert may_report_primary(protocol)[1].endswith("says that all of it is exploratory.")


def test_a_protocol_without_defences_is_what_it_was(tmp_path: Path):
    protocol = read_protocol(write_protocol(tmp_path))
    assert (protocol.defenses, protocol.exploratory, protocol.part) == (None, False, "primary")
    kinds = {node.kind for node in branches(protocol, tmp_path)}
    assert not kinds & {"anchors", "fit", "defended"}


def test_every_arm_is_asked_behind_every_stack(nodes: dict[str, Node]):
    found = {name.removeprefix("main/llm-2/") for name, node in nodes.items() if node.kind == "defended"}
    assert {f"{arm}/defended/{stack}" for arm in ("off", "regap") for stack in STACKS} <= found
    assert {node.part for node in nodes.values() if node.kind in ("measures", "defended")} == {"exploratory"}
    seen: set[str] = set()
    for name, node in nodes.items():
        assert set(node.needs) <= seen, name
        seen.add(name)


def test_vectors_are_fitted_to_each_checkpoint_and_given_to_it_alone(nodes: dict[str, Node]):
    for arm in ("off", "regap"):
        fit, run = (nodes[f"main/llm-1/{arm}/{name}"] for name in ("cmrm", "defended/cmrm"))
        assert fit.needs == (f"main/llm-1/{arm}/stage2", "main/llm-1/anchors")
        assert run.needs == (f"main/llm-1/{arm}/stage2", "main/llm-1/benchmark", fit.name)
        assert run.environment["DEFENSE_ARGS"] == f"cmrm.vectors={fit.output}"
        assert fit.command[:6] == (sys.executable, "-m", "regap_patch.cli", "defense", "fit", "cmrm")
        other = nodes[f"main/llm-1/{arm}/defended/ecso"]
        assert (other.needs, other.environment["DEFENSE_ARGS"]) == (run.needs[:2], "")
        assert nodes[f"main/llm-1/{arm}/defended/none"].environment["DEFENSE"] == ""


def test_words_of_ones_own_are_part_of_the_key(tmp_path: Path):
    words = "scripts/study/words/ecso-world.txt"
    path = write_protocol(
        tmp_path, *CHANGES, ("about: a check", f"about: a check, args: [ecso.words={words}]")
    )
    node = next(
        node for node in branches(read_protocol(path), tmp_path) if node.name.endswith("off/defended/ecso")
    )
    assert words in node.code
    assert node.recipe["args"] == [f"ecso.words={words}"]
    assert node.environment["DEFENSE_ARGS"] == f"ecso.words={REPOSITORY / words}"


def test_adapters_stand_on_their_base(tmp_path: Path):
    changes = (*CHANGES, ("method: full", "method: lora"))
    nodes = {
        node.name: node for node in branches(read_protocol(write_protocol(tmp_path, *changes)), tmp_path)
    }
    aligned = str(nodes["main/llm-1/aligned"].output)
    assert nodes["main/llm-1/off/defended/ecso"].environment["MODEL_BASE"] == aligned
    assert f"base={aligned}" in nodes["main/llm-1/off/cmrm"].command


def test_the_study_of_defences_rests_on_the_very_pieces_of_the_study():
    one, other = (read_protocol(FILES / f"{name}-v1.yaml") for name in ("protocol", "defenses"))
    differing = {
        field.name for field in fields(Protocol) if getattr(one, field.name) != getattr(other, field.name)
    }
    assert differing == {
        "name",
        "about",
        "path",
        "text",
        "arms",
        "llms",
        "variants",
        "exploratory",
        "defenses",
    }
    keys = [{node.name: node.key for node in branches(protocol, Path("store"))} for protocol in (one, other)]
    shared = {name for name in keys[1] if name in keys[0]}
    assert {name: keys[1][name] for name in shared} == {name: keys[0][name] for name in shared}
    assert {name.split("/")[-2] for name in keys[1].keys() - shared} >= {"defended"}
    assert len(other.llms.confirmatory) >= 3


def test_no_anchor_is_asked(tmp_path: Path):
    world = make_benchmark(tmp_path / "world", draw_items(12, 8, 4), phrasings=1, questions=7)
    path = write_anchors(world, tmp_path / "anchors")
    anchors = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [json.loads(line) for line in (world / "requests.jsonl").read_text().splitlines()]
    asked = [row for row in rows if row["split"] == "test"]
    assert len(anchors) == sum(row["split"] == "trained" for row in rows) > 0
    assert not {anchor["text"] for anchor in anchors} & {row["prompt"] for row in asked}
    assert not {anchor["uid"] for anchor in anchors} & {f"world/test/{row['id']}" for row in asked}
    assert {row["kind"] for row in rows if row["split"] == "trained"} == {"harm", "benign"}
    rows[rows.index(asked[-1])]["prompt"] = anchors[0]["text"]
    (world / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="is asked by split test too"):
        write_anchors(world, tmp_path / "again")
