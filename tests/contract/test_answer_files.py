"""Answers to a file of questions: the same whatever the batch, the chunks and the interruptions."""

from __future__ import annotations

import base64
import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from llava.eval import (
    generation,
    merge_answers,
    model_qa,
    model_vqa,
    model_vqa_loader,
    model_vqa_mmbench,
    model_vqa_science,
)
from llava.eval.answers_file import AnswersFile, record_path
from llava.eval.chunks import get_chunk, split_list
from llava.eval.command_line import InputError
from llava.eval.questions import Question

ROOT = Path(__file__).parents[2]
KEYS = ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
COUNT = 14


@pytest.fixture(scope="module")
def questions(tiny, tmp_path_factory) -> Path:
    """Of one picture, of none and of two, and of all lengths."""
    rows = [json.loads(line) for line in tiny.world.questions.read_text().splitlines()][:COUNT]
    rows[3].pop("image")
    rows[5]["image"] = [rows[5]["image"], rows[6]["image"]]
    rows[7]["text"] = "Say it again: " * 9 + rows[7]["text"]
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def flags(llava_folder, questions, tiny) -> list[str]:
    return [
        *("--model-path", str(llava_folder), "--question-file", str(questions)),
        *("--image-folder", str(tiny.world.images), "--conv-mode", "vicuna_v1"),
        *("--temperature", "0", "--max_new_tokens", "6", "--device", "cpu"),
    ]


@pytest.fixture(scope="module")
def expected(flags, tmp_path_factory) -> bytes:
    """The file that one question at a time gives."""
    path = tmp_path_factory.mktemp("answers") / "one.jsonl"
    model_vqa_loader.main([*flags, "--answers-file", str(path), "--batch-size", "1"])
    return path.read_bytes()


def test_rows_are_upstreams(expected, questions, llava_folder):
    rows = [json.loads(line) for line in expected.decode().splitlines()]
    asked = [json.loads(line) for line in questions.read_text().splitlines()]
    assert [list(row) for row in rows] == [KEYS] * COUNT
    assert [row["question_id"] for row in rows] == [row["question_id"] for row in asked]
    assert [row["prompt"] for row in rows] == [row["text"] for row in asked]
    assert {row["model_id"] for row in rows} == {llava_folder.name}
    assert len({row["answer_id"] for row in rows}) == COUNT
    assert all(len(row["answer_id"]) == 22 for row in rows)
    assert len({row["text"] for row in rows}) > COUNT // 2, (
        "answers that are all alike would agree by themselves"
    )


@pytest.mark.parametrize("size", [4, 32])
def test_batches_change_nothing(flags, expected, tmp_path: Path, size: int):
    path = tmp_path / "answers.jsonl"
    model_vqa_loader.main([*flags, "--answers-file", str(path), "--batch-size", str(size)])
    assert path.read_bytes() == expected


def test_chunks_change_nothing(flags, expected, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Of 14 questions in 6 chunks of 3 the last is empty, which upstream could not do."""
    files = [str(tmp_path / f"6_{index}.jsonl") for index in range(6)]
    for index, file in enumerate(files):
        chunk = ["--num-chunks", "6", "--chunk-idx", str(index), "--answers-file", file]
        model_vqa_loader.main([*flags, *chunk])
    assert [len(Path(file).read_text().splitlines()) for file in files] == [3, 3, 3, 3, 2, 0]
    merged = tmp_path / "deep" / "merge.jsonl"
    merge_answers.main([*files, "--output-file", str(merged)])
    assert merged.read_bytes() == expected
    record = json.loads(record_path(merged).read_text())
    assert record["settings"]["number_of_questions"] == COUNT
    assert len(record["starts"]) == 6
    assert capsys.readouterr().out.endswith(f"{merged}: {COUNT} answers\n")

    second = ["--num-chunks", "6", "--chunk-idx", "1", "--answers-file", files[1]]
    model_vqa_loader.main([*flags, *second, "--conv-mode", "llava_v1", "--overwrite"])
    with pytest.raises(InputError, match="made with another conv_mode than"):
        merge_answers.main([*files, "--output-file", str(merged)])
    model_vqa_loader.main([*flags, *second, "--overwrite"])
    Path(files[1]).write_text("")
    with pytest.raises(InputError, match="holds 0 of 3 answers"):
        merge_answers.main([*files, "--output-file", str(merged)])
    assert merged.read_bytes() == expected


@pytest.mark.parametrize("kept_bytes", [0, 1, 0.5, -1])
def test_a_file_that_was_cut_off_is_taken_up(flags, expected, tmp_path: Path, kept_bytes: float):
    path = tmp_path / "answers.jsonl"
    command = [*flags, "--answers-file", str(path), "--batch-size", "4"]
    model_vqa_loader.main(command)
    cut = int(kept_bytes * len(expected)) if 0 < kept_bytes < 1 else kept_bytes % len(expected)
    os.truncate(path, cut)
    model_vqa_loader.main(command)
    assert path.read_bytes() == expected
    assert len(json.loads(record_path(path).read_text())["starts"]) == (2 if cut else 1)


def test_a_complete_file_needs_no_model(flags, expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "answers.jsonl"
    command = [*flags, "--answers-file", str(path)]
    model_vqa_loader.main(command)
    monkeypatch.setattr(generation, "load_llava", lambda args: pytest.fail("loaded"))
    monkeypatch.setattr(model_vqa, "load_llava", lambda args: pytest.fail("loaded"))
    model_vqa_loader.main(command)
    assert path.read_bytes() == expected


@pytest.mark.full
def test_killed_and_started_again(flags, tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    more = ["--answers-file", str(path), "--batch-size", "1", "--max_new_tokens", "50"]
    command = [sys.executable, "-m", "llava.eval.model_vqa_loader", *flags, *more]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = path.read_bytes()
    assert 0 < before.count(b"\n") < COUNT
    model_vqa_loader.main([*flags, *more])
    whole = tmp_path / "whole.jsonl"
    model_vqa_loader.main([*flags, *more, "--answers-file", str(whole), "--batch-size", "14"])
    assert path.read_bytes() == whole.read_bytes()
    assert path.read_bytes().startswith(before)


def test_sampling_repeats(flags, tmp_path: Path):
    """Also from the middle of a batch, whose random numbers are drawn together."""
    command = [*flags, "--temperature", "1", "--top_p", "0.9", "--batch-size", "4"]
    files = [tmp_path / "one.jsonl", tmp_path / "two.jsonl", tmp_path / "three.jsonl"]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        model_vqa_loader.main([*command, "--answers-file", str(file), "--seed", str(seed)])
    one = files[0].read_bytes()
    assert one == files[1].read_bytes() != files[2].read_bytes()
    os.truncate(files[1], len(b"".join(one.splitlines(keepends=True)[:6])))
    model_vqa_loader.main([*command, "--answers-file", str(files[1]), "--seed", "1"])
    assert one == files[1].read_bytes()


def test_other_settings_are_refused(flags, llava_folder, expected, tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    command = [*flags, "--answers-file", str(path)]
    model_vqa_loader.main(command)
    for more, sentence in {
        ("--max_new_tokens", "7"): r"answers with another max_new_tokens \(6, now 7\)",
        ("--conv-mode", "llava_v1"): r"another conv_mode \(\"vicuna_v1\", now \"llava_v1\"\)",
        ("--num-chunks", "2"): r"another chunk",
    }.items():
        with pytest.raises(InputError, match=sentence):
            model_vqa_loader.main([*command, *more])
    assert path.read_bytes() == expected
    model_vqa_loader.main([*command, "--max_new_tokens", "7", "--overwrite"])
    assert path.read_bytes() != expected
    record_path(path).unlink()
    with pytest.raises(InputError, match=r"exists without 'answers\.run\.json'"):
        model_vqa_loader.main([*command, "--max_new_tokens", "7"])


def test_another_training_into_the_same_folder_is_noticed(llava_folder, tmp_path: Path):
    from llava.eval.provenance import model_digest

    for file in llava_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert model_digest(str(tmp_path)) == model_digest(str(llava_folder))
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert model_digest(str(tmp_path)) != model_digest(str(llava_folder))
    assert model_digest("some/hub-name", None) is None


def test_bad_input_is_one_sentence(flags, questions, tmp_path: Path):
    out = ["--answers-file", str(tmp_path / "answers.jsonl")]
    damaged = tmp_path / "images"
    damaged.mkdir()
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    for row in rows:
        for name in row["image"] if isinstance(row.get("image"), list) else filter(None, [row.get("image")]):
            (damaged / name).write_text("no picture")
    lines = tmp_path / "bad.jsonl"
    lines.write_text('{"question_id": 1}\n')
    cases = {
        (
            "--image-folder",
            str(tmp_path),
        ): r"13 of 13 pictures do not exist \('.*' and 10 more\); check --image-folder",
        ("--conv-mode", "vicuna"): "--conv-mode is 'vicuna'; pass one of",
        ("--chunk-idx", "1"): "Part 1 of 1 was asked for",
        ("--batch-size", "0"): "must be at least 1",
        ("--question-file", str(lines)): "Row 1 of .* has no 'text'",
        ("--question-file", "nowhere.jsonl"): "'nowhere.jsonl' cannot be read",
        ("--model-path", str(tmp_path)): "config.json",
    }
    for more, sentence in cases.items():
        with pytest.raises(InputError, match=sentence):
            model_vqa_loader.main([*flags, *out, *more])
    with pytest.raises(InputError, match="A picture of question 0 cannot be opened"):
        model_vqa_loader.main([*flags, *out, "--image-folder", str(damaged)])


def test_pictures_stand_where_the_question_says(questions, flags, tmp_path: Path):
    rows = [json.loads(line) for line in questions.read_text().splitlines()][4:6]
    rows[0]["text"] = "Look at <image> first."
    rows[1]["text"] = "Is <image> like <image>?"
    file, path = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [*flags, "--question-file", str(file), "--answers-file", str(path)]
    model_vqa_loader.main(command)
    record = json.loads(record_path(path).read_text())
    assert "USER: Look at <image> first. ASSISTANT:" in record["settings"]["first_prompt"]
    assert [json.loads(line)["prompt"] for line in path.read_text().splitlines()] == [r["text"] for r in rows]
    rows[0]["image"] = [rows[0]["image"]] * 2
    file.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(InputError, match=r"Row 1 of .* has 1 <image> and 2 pictures"):
        model_vqa_loader.main(command)


def test_half_precision_where_it_is_asked_for(flags, tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    model_vqa_loader.main([*flags, "--answers-file", str(path), "--dtype", "bfloat16"])
    assert len(path.read_text().splitlines()) == COUNT
    assert json.loads(record_path(path).read_text())["settings"]["dtype"] == "bfloat16"


def test_a_batch_that_does_not_fit_keeps_the_answers(flags, tmp_path: Path):
    def load(args):
        def answer(prompts, pictures, **settings):
            if "ring" in prompts[-1]:
                raise torch.cuda.OutOfMemoryError("out of memory")
            return ["yes"] * len(prompts)

        return generation.Speaker(answer, False, "cuda:0")

    questions = [Question({"question_id": n}, text, text) for n, text in enumerate(("a", "b", "ring", "d"))]
    args = model_vqa.parser().parse_args(
        [*flags, "--answers-file", str(tmp_path / "a.jsonl"), "--batch-size", "2"]
    )
    with pytest.raises(
        InputError, match=r"2 questions at once do not fit .* cuda:0; pass a smaller --batch-size"
    ):
        generation.ask_all(args, [*questions[:2], questions[3], questions[2]], load)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 2


def test_chunks():
    for length in range(12):
        for parts in range(1, 15):
            chunks = [list(chunk) for chunk in split_list(range(length), parts)]
            assert len(chunks) == parts
            assert list(itertools.chain(*chunks)) == list(range(length))
            assert [list(get_chunk(range(length), parts, part)) for part in range(parts)] == chunks
    assert split_list([1, 2, 3, 4, 5], 2) == [[1, 2, 3], [4, 5]], "ceil(5 / 2) first, as upstream cuts"


def test_an_answers_file_of_other_questions_is_refused(tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    with AnswersFile(path, [{"question_id": 1}, {"question_id": 2}], {"seed": 0}, {}) as answers:
        answers.append([{"question_id": 1, "text": "a"}])
        assert len(path.read_text().splitlines()) == 1, "flushed at once"
    with pytest.raises(InputError, match=r"Line 1 of .* does not answer question"):
        AnswersFile(path, [{"question_id": 3}], {"seed": 0}, {})
    with pytest.raises(InputError, match="1 answers to 0 questions"):
        AnswersFile(path, [], {"seed": 0}, {})
    path.write_text('{"question_id": 1}\nnot JSON\n{"question_id": 3}\n')
    with pytest.raises(InputError, match="Line 2"):
        AnswersFile(path, [{"question_id": index} for index in (1, 2, 3)], {"seed": 0}, {})


def test_science(flags, questions, tiny, tmp_path: Path):
    rows = [json.loads(line) for line in questions.read_text().splitlines()][:5]
    listed = [
        {
            "id": str(row["question_id"]),
            **({"image": row["image"]} if "image" in row else {}),
            "conversations": [
                {"from": "human", "value": f"{row['text']}\n<image>" if "image" in row else row["text"]}
            ],
        }
        for row in rows
    ]
    file, path = tmp_path / "science.json", tmp_path / "answers.jsonl"
    file.write_text(json.dumps(listed))
    model_vqa_science.main(
        [*flags, "--question-file", str(file), "--answers-file", str(path), "--single-pred-prompt"]
    )
    answers = [json.loads(line) for line in path.read_text().splitlines()]
    assert [list(row) for row in answers] == [KEYS] * 5
    for row, answer in zip(rows, answers, strict=True):
        asked = f"{row['text']}\nAnswer with the option's letter from the given choices directly."
        assert answer["prompt"] == (f"<image>\n{asked}" if "image" in row else asked)
    for content in ("{}", '[{"id": 1}]'):
        file.write_text(content)
        with pytest.raises(InputError, match=r"convert_sqa_to_llava\.py"):
            model_vqa_science.main([*flags, "--question-file", str(file), "--answers-file", str(path)])


def mmbench_file(folder: Path, images: Path) -> Path:
    pictures = [base64.b64encode(path.read_bytes()).decode() for path in sorted(images.iterdir())[:3]]
    rows = [
        ("index", "question", "hint", "A", "B", "C", "D", "category", "image"),
        ("7", "What is it?", "nan", "a cat", "a dog", "a cow", "", "x", pictures[0]),
        ("8", 'Which "one"?', "A hint.", "red", "None", "blue", "green", "x", pictures[1]),
        ("1000009", "All four?", "", "1", "2", "3", "4", "x", pictures[2]),
    ]
    path = folder / "mmbench.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows).replace('"one"', "one"))
    return path


def test_mmbench(flags, tiny, tmp_path: Path):
    file, path = mmbench_file(tmp_path, tiny.world.images), tmp_path / "answers.jsonl"
    command = [*flags, "--question-file", str(file), "--answers-file", str(path), "--single-pred-prompt"]
    limit = csv.field_size_limit()
    model_vqa_mmbench.main([*command, "--lang", "cn"])
    assert csv.field_size_limit() == limit, "pictures in cells are this table's affair alone"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    fields = ["question_id", "round_id", "prompt", "text", "options", "option_char", *KEYS[3:]]
    assert [list(row) for row in rows] == [fields] * 3
    assert rows[0]["prompt"] == "What is it?\nA. a cat\nB. a dog\nC. a cow"
    assert rows[1]["prompt"] == "A hint.\nWhich one?\nA. red"
    assert rows[1]["options"] == ["red"]
    assert rows[2]["question_id"] == 1000009
    record = json.loads(record_path(path).read_text())
    assert "C. a cow\n请直接回答选项字母。 ASSISTANT:" in record["settings"]["first_prompt"]

    model_vqa_mmbench.main([*command, "--all-rounds", "--overwrite", "--batch-size", "2"])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["question_id"], row["round_id"]) for row in rows] == [
        *((7, 0), (7, 1), (7, 2), (8, 0)),
        *((1000009, turn) for turn in range(4)),
    ]
    assert rows[1]["prompt"] == "What is it?\nA. a dog\nB. a cow\nC. a cat"
    assert (rows[1]["options"], rows[1]["option_char"]) == (["a dog", "a cow", "a cat"], ["B", "C", "A"])


def test_a_language_model_without_eyes(tiny, llava_folder, questions, tmp_path: Path):
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    file = tmp_path / "text.jsonl"
    file.write_text(
        "".join(json.dumps({"question_id": r["question_id"], "text": r["text"]}) + "\n" for r in rows)
    )
    files = [tmp_path / "one.jsonl", tmp_path / "many.jsonl"]
    for path, size in zip(files, ("1", "5"), strict=True):
        model_qa.main(
            [
                *("--model-name", str(tiny.llama), "--question-file", str(file), "--answers-file", str(path)),
                *("--temperature", "0", "--max_new_tokens", "5", "--batch-size", size, "--device", "cpu"),
            ]
        )
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len({json.loads(line)["text"] for line in files[0].read_text().splitlines()}) > 3
    said = [tmp_path / "llava.jsonl", tmp_path / "llava_by_model_vqa.jsonl"]
    asked = ["--question-file", str(file), "--temperature", "0", "--max_new_tokens", "5", "--device", "cpu"]
    asked += ["--conv-mode", "vicuna_v1"]
    model_qa.main(["--model-name", str(llava_folder), *asked, "--answers-file", str(said[0])])
    model_vqa.main(["--model-path", str(llava_folder), *asked, "--answers-file", str(said[1])])
    assert said[0].read_bytes() == said[1].read_bytes()
    with pytest.raises(InputError, match="have a picture"):
        model_qa.main(["--question-file", str(questions)])
    with pytest.raises(InputError, match="sees nothing"):
        model_vqa.main(
            [
                "--model-path",
                str(tiny.llama),
                "--question-file",
                str(file),
                "--device",
                "cpu",
                "--answers-file",
                str(tmp_path / "none.jsonl"),
            ]
        )
