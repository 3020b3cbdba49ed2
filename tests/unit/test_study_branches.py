"""From a protocol to pieces: what branches share, what a setting changes, and in which order all is made."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from regap_patch.study.arms import arm_names
from regap_patch.study.branches import branches
from regap_patch.study.protocol import Protocol, read_protocol
from regap_patch.study.store import Node

EXPLORATORY = sorted({*arm_names()} - {"off", "regap"})
TEXT = f"""
name: tiny
about: of a test
smoke: true
world:
  {{forbidden: 8, benign: 4, twins: 4, phrasings: 1, questions: 7, pictures: 64, conversations: 32, seed: 0}}
language_model: {{hidden_size: 32, num_layers: 1, steps: 5, documents: 600, vocabulary: 640}}
alignment:
  {{context_share: 0.1, learning_rate: 0.001, stop_at: 0.25, band: [0.15, 0.3], check_every: 5, max_steps: 5}}
tower: {{steps: 5, seed: 0}}
stage1: {{batch: 8, learning_rate: 1.0e-3}}
stage2: {{method: full, batch: 8, learning_rate: 1.0e-4, instruction_share: 0.25}}
measures: {{image_modes: [none, words, blank, real], batch: 16, max_new_tokens: 8, pairs: 8, captions: 8}}
arms: {{primary: [off, regap], exploratory: [{", ".join(EXPLORATORY)}]}}
llms: {{pilot: [9], confirmatory: [1, 2], exploratory: [1]}}
variants:
  lora: {{stage2: {{method: lora}}}}
  narrow: {{alignment: {{context_share: 0.0}}}}
outcome: {{metric: unsafe_rate, condition: blank, baseline: none, stage: stage2, level: 0.95, margin: 0.05}}
utility: {{metric: vqa_accuracy, margin: 0.05}}
power: {{target: 0.8, effect: 0.05, pilot_sd: null, cpu_hours: 8}}
"""


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    path = tmp_path_factory.mktemp("protocol") / "tiny.yaml"
    path.write_text(TEXT)
    return read_protocol(path)


@pytest.fixture(scope="module")
def nodes(protocol: Protocol, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Node]:
    made = branches(protocol, tmp_path_factory.mktemp("store"))
    assert len({node.name for node in made}) == len(made)
    return {node.name: node for node in made}


def test_every_piece_stands_after_those_that_it_needs(nodes):
    seen: set[str] = set()
    for name, node in nodes.items():
        assert set(node.needs) <= seen, name
        assert node.command, name
        seen.add(name)


def test_arms_share_their_language_model_and_variants_what_they_do_not_change(nodes):
    for llm in (1, 2, 9):
        of_arms = [nodes[f"main/llm-{llm}/{arm}/stage1"] for arm in ("off", "regap")]
        assert {node.needs[0] for node in of_arms} == {f"main/llm-{llm}/aligned"}
    assert nodes["lora/llm-1/regap/stage1"].key == nodes["main/llm-1/regap/stage1"].key
    assert nodes["lora/llm-1/regap/stage2"].key != nodes["main/llm-1/regap/stage2"].key
    assert nodes["narrow/llm-1/base"].key == nodes["main/llm-1/base"].key
    assert nodes["narrow/llm-1/aligned"].key != nodes["main/llm-1/aligned"].key
    assert len({nodes[f"main/llm-{llm}/text"].key for llm in (1, 2, 9)}) == 3
    assert len({node.key for name, node in nodes.items() if name.endswith("/tower")}) == 1


def test_parts_are_those_of_the_protocol(nodes):
    parts = {name: node.part for name, node in nodes.items() if node.kind == "measures"}
    assert parts["main/llm-1/off/measures2"] == parts["main/llm-2/regap/measures1"] == "primary"
    assert parts["main/llm-9/regap/measures2"] == "pilot"
    assert parts["lora/llm-1/off/measures2"] == parts["main/llm-1/low_lr/measures1"] == "exploratory"
    extra = {name.split("/")[2] for name, part in parts.items() if part == "exploratory" and "main" in name}
    assert extra == set(EXPLORATORY)
    assert not any("llm-2" in name for name, part in parts.items() if part == "exploratory")
    assert {node.part for node in nodes.values() if node.kind != "measures"} == {""}


def test_the_projectors_of_controls_come_from_off(nodes):
    off = nodes["main/llm-1/off/stage1"]
    for arm in ("mean_shift", "norm_rescaled", "text_centroid"):
        assert nodes[f"main/llm-1/{arm}/stage1"].needs[0] == off.name
        assert f"--projector {off.output}" in " ".join(nodes[f"main/llm-1/{arm}/stage1"].command)
        assert str(nodes[f"main/llm-1/{arm}/stage1"].output) in str(
            nodes[f"main/llm-1/{arm}/stage2"].environment["PROJECTOR"]
        )
    probe = nodes["main/llm-1/random_tokens/measures2"]
    assert probe.needs == ("main/llm-1/off/stage2", "main/llm-1/benchmark-stray")


def test_what_an_arm_says_reaches_its_training(nodes):
    off, regap = (nodes[f"main/llm-1/{arm}/stage1"].environment for arm in ("off", "regap"))
    assert off["REGAP_FLAGS"] == "--regap_loss off --regap_weight 1.0"
    assert regap["REGAP_FLAGS"] == "--regap_loss centroid_l2 --regap_weight 1.0"
    differing = {name for name in off if off[name] != regap[name]}
    assert differing == {"REGAP_FLAGS", "OUTPUT_DIR"}
    assert (
        nodes["main/llm-1/pairwise_l2_01/stage1"].environment["REGAP_FLAGS"].endswith("l2 --regap_weight 0.1")
    )
    assert nodes["main/llm-1/low_lr/stage1"].environment["LEARNING_RATE"] == "0.0003"
    assert nodes["main/llm-1/layernorm/stage2"].command[-1] == "mlp2x_gelu_ln"
    assert "REGAP_FLAGS" not in nodes["main/llm-1/regap/stage2"].environment


def test_adapters_and_projectors_are_measured_on_their_base(nodes):
    def base(name: str) -> str | None:
        words = nodes[name].command
        return words[words.index("--base") + 1] if "--base" in words else None

    aligned = str(nodes["main/llm-1/aligned"].output)
    assert base("main/llm-1/off/measures1") == base("lora/llm-1/off/measures2") == aligned
    assert base("main/llm-1/off/measures2") is None


def test_commands_are_those_of_modules_and_scripts_that_are_there(nodes):
    for node in nodes.values():
        first = node.command[:2]
        assert first in ((sys.executable, "-m"), ("bash", node.command[1]))
        assert Path(first[1]).is_file() if first[0] == "bash" else find_spec(node.command[2])
