"""Scores and answers beside those of upstream LLaVA, on the same files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
import torch

from tests.contract.tiny_llava import make_model
from tests.unit import generated_answers
from tests.unit.test_scorers_of_choices import pope_files, science_files
from tests.unit.test_scorers_of_text import textvqa_files

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

PAIR = ("ours", "upstream")
COUNT = 1500
BYTE_TOKENS_END = 3 + 256


def test_normalisation(packages):
    texts = [*generated_answers.answers(COUNT, 11), *generated_answers.WORDS]
    ours, theirs = (packages[name]("eval_operations.normalised", answers=texts) for name in PAIR)
    assert ours == theirs
    assert len(set(ours)) > COUNT / 2


@pytest.mark.parametrize("kind", ["soft_accuracies", "exact_accuracies"])
def test_accuracies(packages, kind: str):
    random = Random(kind)
    entries = [
        {"pred_answer": text, "gt_answers": generated_answers.references(random, text)}
        for text in generated_answers.answers(300, 12)
    ]
    ours, theirs = (packages[name](f"eval_operations.{kind}", entries=entries) for name in PAIR)
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert 0.1 < sum(theirs) / len(theirs) < 0.9


def test_textvqa(packages, tmp_path: Path):
    annotations, results, _ = textvqa_files(tmp_path)
    prompts = [json.loads(line)["prompt"] for line in Path(results).read_text().splitlines()]
    questions, printed = (
        [packages[name](operation, **arguments) for name in PAIR]
        for operation, arguments in (
            ("eval_operations.questions_in_prompts", {"prompts": prompts}),
            (
                "eval_operations.printed",
                {
                    "module": "llava.eval.eval_textvqa",
                    "argv": ["--annotation-file", annotations, "--result-file", results],
                },
            ),
        )
    )
    assert questions[0] == questions[1]
    assert printed[0] == printed[1]


def test_pope(packages, tmp_path: Path):
    flags, categories = pope_files(tmp_path, 240, 13)
    ours, theirs = (
        packages[name]("eval_operations.printed", module="llava.eval.eval_pope", argv=flags) for name in PAIR
    )
    blocks = [sorted(text.split("====================================\n")) for text in (ours, theirs)]
    assert blocks[0] == blocks[1]
    assert len(blocks[0]) == len(categories) + 1


def test_science_qa(packages, tmp_path: Path):
    flags, *_ = science_files(tmp_path)
    left = []
    for name in PAIR:
        text = packages[name]("eval_operations.printed", module="llava.eval.eval_science_qa", argv=flags)
        left.append(
            [
                text.strip(),
                *(json.loads((tmp_path / f"{file}.json").read_text()) for file in ("output", "result")),
            ]
        )
    for side in ("correct", "incorrect"):
        for row in left[0][1][side]:
            if row["pred"] == "FAILED" and row["question"] == "Unknown":
                row["is_multimodal"] = (
                    False  # upstream takes every unanswered question for one without a picture
                )
    assert left[0][1:] == left[1][1:]
    totals = [line[0].split(", IMG")[0] for line in left]
    assert totals[0] == totals[1]


def test_science_qa_with_every_question_answered(packages, tmp_path: Path):
    flags, *_ = science_files(tmp_path)
    answered = [
        json.loads(line)["question_id"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()
    ]
    (tmp_path / "pid_splits.json").write_text(json.dumps({"test": answered}))
    ours, theirs = (
        packages[name]("eval_operations.printed", module="llava.eval.eval_science_qa", argv=flags)
        for name in PAIR
    )
    assert ours == theirs


def test_answers_are_upstreams(packages, tiny: TinyAssets, tmp_path: Path):
    """Upstream answers one question at a time; ours 5, of different lengths, at once. Both in float32."""
    from llava.eval import model_vqa_loader

    model = tmp_path / "llava-of-random-weights"  # a short training says one word whatever is asked
    speaker = make_model(tiny)
    with torch.no_grad():  # the two versions of transformers write bytes that are no UTF-8 differently
        speaker.lm_head.weight[:BYTE_TOKENS_END] = 0
    speaker.save_pretrained(model)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(tiny.llama / name, model / name)

    rows = [json.loads(line) for line in tiny.world.questions.read_text().splitlines()][:12]
    rows[3]["text"] = "Look well. " * 7 + rows[3]["text"]
    questions = generated_answers.write_lines(tmp_path / "questions.jsonl", rows)
    flags = [
        *("--model-path", str(model), "--question-file", questions),
        *("--image-folder", str(tiny.world.images), "--conv-mode", "vicuna_v1"),
        *("--temperature", "0", "--max_new_tokens", "8"),
    ]
    files = {name: tmp_path / f"{name}.jsonl" for name in PAIR}
    theirs = [*flags, "--answers-file", str(files["upstream"])]
    packages["upstream"]("eval_operations.answers_on_cpu", module="llava.eval.model_vqa_loader", argv=theirs)
    model_vqa_loader.main(
        [*flags, "--answers-file", str(files["ours"]), "--batch-size", "5", "--device", "cpu"]
    )
    left, right = ([json.loads(line) for line in files[name].read_text().splitlines()] for name in PAIR)
    assert [list(row) for row in left] == [list(row) for row in right], "the same fields in the same order"
    for ours, upstreams in zip(left, right, strict=True):
        assert len(ours.pop("answer_id")) == len(upstreams.pop("answer_id"))
        assert ours == upstreams
    assert len({row["text"] for row in left}) > 3
