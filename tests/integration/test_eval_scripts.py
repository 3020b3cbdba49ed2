"""The benchmarks' scripts plan what the programs take, and one of them runs from questions to scores."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.contract.tiny_llava import make_model
from tests.integration.test_cluster_scripts import call
from tests.unit.test_submissions import script

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts" / "v1_5" / "eval").glob("*.sh"))
BENCHMARKS = {
    *("vqav2", "gqa", "vizwiz", "sqa", "textvqa", "pope", "mme", "mmbench", "mmbench_cn", "seed", "mmvet"),
}
KNOBS = {
    "MODEL",
    "MODEL_BASE",
    "NAME",
    "DATA",
    "CONV_MODE",
    "TEMPERATURE",
    "BATCH_SIZE",
    "NUM_CHUNKS",
    "DEVICE",
}


def understood(words: list[str]) -> dict[str, object] | None:
    """The flags of one planned line, read by its own program; None for GQA's kit, which is not ours."""
    at = words.index(sys.executable)
    if words[at + 1] == "-m":
        parser = importlib.import_module(words[at + 2]).parser()
        return {"module": words[at + 2], **vars(parser.parse_args(words[at + 3 :]))}
    if Path(words[at + 1]).parent == ROOT / "scripts":
        name = Path(words[at + 1]).stem
        return {"module": name, **vars(script(name).parser().parse_args(words[at + 2 :]))}
    assert words[at + 1 :] == ["eval/eval.py", "--tier", "testdev_balanced"]
    return None


def planned(path: Path, *flags: str, **knobs: object) -> list[dict[str, object]]:
    done = call(path, *flags, DRY_RUN=1, **knobs)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    return [found for found in map(understood, lines) if found is not None]


def test_no_benchmark_is_missing():
    assert {path.stem for path in SCRIPTS} == BENCHMARKS


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_planned_lines_are_understood(path: Path):
    lines = planned(path, "--max_new_tokens", "9", MODEL="some/with space", CUDA_VISIBLE_DEVICES="0")
    asking = lines[0]
    assert str(asking["module"]).startswith("llava.eval.model_vqa")
    assert (asking["model_path"], asking["temperature"], asking["conv_mode"]) == (
        "some/with space",
        0,
        "vicuna_v1",
    )
    assert (asking["max_new_tokens"], asking["num_chunks"], asking["device"]) == (9, 1, None)
    assert len(lines) >= 2, "answers are scored or made ready for a server"
    scoring = {key: value for line in lines[1:] for key, value in line.items()}
    answers = str(asking["answers_file"])
    reads = {str(value) for value in scoring.values()}
    names = {"vqav2": "with space", "mme": "with space", "mmbench": "with space", "mmbench_cn": "with space"}
    assert (names.get(path.stem) or answers) in reads, "what was answered is what is scored"
    assert "with space" in answers

    chunked = planned(path, CUDA_VISIBLE_DEVICES="2,5,7")
    assert [line["chunk_idx"] for line in chunked[:3]] == [0, 1, 2]
    assert {line["num_chunks"] for line in chunked[:3]} == {3}
    merging = chunked[3]
    assert merging["module"] == "llava.eval.merge_answers"
    assert merging["files"] == [line["answers_file"] for line in chunked[:3]]
    assert len(chunked) == len(lines) + 3


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_knobs_are_told(path: Path):
    assert os.access(path, os.X_OK)
    helped = call(path, "--help")
    assert helped.returncode == 0
    assert set(re.findall(r"^  ([A-Z0-9_]+) \(", helped.stdout, re.MULTILINE)) >= KNOBS
    text = path.read_text() + (ROOT / "scripts" / "evaluation.sh").read_text()
    knobs = re.findall(r'^([A-Z0-9_]+)="\$\{([A-Z0-9_]+):-', text, re.MULTILINE)
    assert all(name == read for name, read in knobs)
    assert len({name for name, _ in knobs}) == len(knobs)


def test_textvqa_without_ocr(tmp_path: Path):
    lines = planned(ROOT / "scripts/v1_5/eval/textvqa.sh", OCR="off")
    assert lines[0]["module"] == "convert_textvqa_without_ocr"
    assert lines[0]["dst"] == lines[1]["question_file"]
    assert "without-ocr" in str(lines[1]["answers_file"])
    refused = call(ROOT / "scripts/v1_5/eval/textvqa.sh", OCR="maybe")
    assert (refused.returncode, refused.stderr) == (2, "OCR is 'maybe': set it to on or off.\n")
    row = {"question_id": "i", "image": "i.jpg", "text": "What?\nReference OCR token: A, B\nShort."}
    source, made = tmp_path / "with.jsonl", tmp_path / "without.jsonl"
    source.write_text(json.dumps(row) + "\n")
    script("convert_textvqa_without_ocr").main(["--src", str(source), "--dst", str(made)])
    assert json.loads(made.read_text()) == {**row, "text": "What?\nShort."}


def pope_of_the_world(tiny, folder: Path) -> list[dict]:
    """Yes-no questions about the tiny world's pictures, half of them to be denied, in POPE's files."""
    (folder / "labels").mkdir(parents=True)
    asked = []
    for at, category in enumerate(("popular", "random")):
        labels = []
        rows = [json.loads(line) for line in tiny.world.questions.read_text().splitlines()][at::2][:7]
        for index, row in enumerate(rows):
            seen = {"image": row["image"], "text": f"Is there a ring, number {index}?"}
            labels.append({**seen, "label": "yes" if index % 2 else "no"})
            text = f"{seen['text']}\nAnswer the question using a single word or phrase."
            asked.append(
                {"question_id": len(asked), "image": row["image"], "text": text, "category": category}
            )
        lines = "".join(json.dumps(label) + "\n" for label in labels)
        (folder / "labels" / f"coco_pope_{category}.json").write_text(lines)
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    return asked


@pytest.mark.parametrize("chunks", [1, pytest.param(2, marks=pytest.mark.full)])
def test_from_questions_to_scores(tiny, tmp_path: Path, chunks: int):
    """POPE's script on the CPU, in one process or two."""
    model = tmp_path / "llava"
    make_model(tiny).save_pretrained(model)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(tiny.llama / name, model / name)
    asked = pope_of_the_world(tiny, tmp_path / "pope")
    knobs = {
        **{"MODEL": model, "DATA": tmp_path / "pope", "IMAGES": tiny.world.images, "DEVICE": "cpu"},
        **{"QUESTIONS": tmp_path / "pope/questions.jsonl", "LABELS": tmp_path / "pope/labels"},
        **{"NUM_CHUNKS": chunks, "OMP_NUM_THREADS": 1, "HF_HUB_OFFLINE": 1},
    }
    path = ROOT / "scripts/v1_5/eval/pope.sh"
    done = call(path, "--max_new_tokens", "4", timeout=300, **knobs)
    assert done.returncode == 0, done.stderr
    assert "Category: popular, # samples: 7\nTP\tFP\tTN\tFN" in done.stdout
    answers = tmp_path / "pope/answers/llava.jsonl"
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [row["question_id"] for row in rows] == [row["question_id"] for row in asked]
    report = json.loads((tmp_path / "pope/scores/llava.json").read_text())
    assert {name: part["samples"] for name, part in report["categories"].items()} == {
        "popular": 7,
        "random": 7,
    }
    made = report["provenance"]["answers"]["settings"]
    assert (made["conv_mode"], made["temperature"], made["number_of_questions"]) == ("vicuna_v1", 0, 14)
    assert made["first_prompt"].endswith("single word or phrase. ASSISTANT:")
    assert report["provenance"]["answers"]["starts"][0]["versions"]["torch"]
