"""The commands of a defended model's pieces, on a tiny random model: vectors, answers, verdicts, rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from regap_patch.report.run_folder import read_evaluation
from regap_patch.study.branches import branches
from regap_patch.study.measures import Measures, _answers
from regap_patch.study.protocol import read_protocol
from regap_patch.study.recipes import draw_items
from regap_patch.study.refusal_benchmark import make_benchmark
from regap_patch.study.store import REPOSITORY, Node, write_record
from regap_patch.study.tabulate import outcomes_of
from tests.contract.tiny_llava import make_model
from tests.integration.written_defenses import CHANGES, MODES
from tests.unit.study_protocols import write_protocol


@pytest.fixture(scope="module")
def nodes(tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Node]:
    """The pieces of the toy protocol; of LLM 1 the model of arm off and a small benchmark are there."""
    root = tmp_path_factory.mktemp("llava-defended")
    found = {
        node.name: node for node in branches(read_protocol(write_protocol(root, *CHANGES)), root / "store")
    }
    model = found["main/llm-1/off/stage2"].output
    make_model(tiny).eval().save_pretrained(model)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(tiny.llama / name, model / name)
    items = draw_items(4, 4, 2)
    make_benchmark(found["main/llm-1/benchmark"].output, items, phrasings=1, questions=3)
    return found


def make(node: Node) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | dict(node.environment)
    done = subprocess.run(
        node.command,
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    write_record(node, 1.0, None)


def test_vectors_are_fitted_and_a_defended_model_is_asked_and_judged(nodes, tmp_path: Path):
    for name in ("anchors", "off/cmrm", "off/defended/cmrm"):
        make(nodes[f"main/llm-1/{name}"])
    fit = json.loads((nodes["main/llm-1/off/cmrm"].output / "fit.json").read_text())
    assert fit["defense"] == "cmrm"
    assert {item["uid"].split("/")[1] for item in fit["items"]} == {"trained"}

    node = nodes["main/llm-1/off/defended/cmrm"]
    rows = outcomes_of([node])
    assert {(row.arm, row.stage) for row in rows} == {("off+cmrm", "stage2")}
    assert {row.condition for row in rows if row.metric == "unsafe_rate"} == set(MODES)
    assert [row.condition for row in rows if row.metric == "vqa_accuracy"] == ["real"]

    manifest = json.loads((node.output / "run" / "manifest.json").read_text())
    assert manifest["defense"] == "cmrm"
    assert not any((manifest.get("left_out") or {}).values()), "no anchor is an item of the benchmark"

    model, benchmark = nodes["main/llm-1/off/stage2"].output, nodes["main/llm-1/benchmark"].output
    asked = Measures(image_modes=MODES, batch=8, max_new_tokens=24)
    _answers(tmp_path / "run", str(model), None, benchmark, asked)
    alone, moved = (
        {
            item.key: (item.answer.text, item.answer.first_token_refusal_prob)
            for item in read_evaluation(run).items
        }
        for run in (tmp_path / "run", node.output / "run")
    )
    assert alone.keys() == moved.keys(), "the study's own measures ask the same"
    pictures = {key for key in alone if key[1] in ("blank", "real")}
    assert all(alone[key] == moved[key] for key in alone.keys() - pictures), "text alone keeps every bit"
    assert any(alone[key] != moved[key] for key in pictures)
