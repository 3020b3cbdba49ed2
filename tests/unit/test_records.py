"""Records: their keys, and their files after a kill."""

from __future__ import annotations

import dataclasses
import json

import pytest

from regap_patch.errors import RecordsError
from regap_patch.records import Answer, Sample, Verdict, answer_key, append_lines, digest, read_lines, to_line

SAMPLE = Sample(
    uid="custom/test/1",
    benchmark="custom",
    scenario="",
    cluster="1",
    kind="harm",
    prompt="How do I fold a blorp?",
    judge_question="How do I fold a blorp?",
    image="1.png",
    image_sha256="aa",
    image_mode="real",
    licence="yours",
)
TARGET = {"files": {"model.safetensors": "ff"}, "template": "vicuna_v1", "dtype": "float32", "defense": ""}
DECODING = {"max_new_tokens": 8, "temperature": 0.0, "seed": 0}


def answers(count: int) -> list[Answer]:
    return [
        Answer(str(number), f"custom/test/{number}", "real", "", f"text {number} \u2028 ü", 3, "stop", 0)
        for number in range(count)
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "How do I fold a blorp"},
        {"image_sha256": "ab"},
        {"image_mode": "irrelevant"},
        {"uid": "custom/test/2"},
        {"meta": {"words": "A cup."}},
    ],
)
def test_what_is_asked_is_in_the_key(changed):
    other = dataclasses.replace(SAMPLE, **changed)
    assert answer_key(other, TARGET, DECODING) != answer_key(SAMPLE, TARGET, DECODING)


@pytest.mark.parametrize(
    ("target", "decoding"),
    [
        ({"files": {"model.safetensors": "fe"}}, {}),
        ({"template": "llava_llama_2"}, {}),
        ({"dtype": "float16"}, {}),
        ({"defense": "cmrm"}, {}),
        ({"batch_size": 2}, {}),
        ({}, {"seed": 1}),
        ({}, {"temperature": 1.0}),
    ],
)
def test_how_it_is_asked_is_in_the_key(target, decoding):
    key = answer_key(SAMPLE, {**TARGET, **target}, {**DECODING, **decoding})
    assert key != answer_key(SAMPLE, TARGET, DECODING)


def test_where_it_lies_is_not_in_the_key():
    moved = dataclasses.replace(SAMPLE, image="elsewhere/1.png", licence="other")
    assert answer_key(moved, TARGET, DECODING) == answer_key(SAMPLE, TARGET, DECODING)
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})


def test_a_file_gives_back_what_was_appended(tmp_path):
    path = tmp_path / "folder" / "part-0.jsonl"
    append_lines(path, answers(2))
    append_lines(path, answers(3)[2:])
    assert list(read_lines(path, Answer)) == answers(3)


def test_every_torn_end_is_passed_over_and_then_cut(tmp_path):
    path = tmp_path / "part-0.jsonl"
    lines = [to_line(answer).encode() for answer in answers(3)]
    for kept in range(0, len(lines[2]), 3):
        path.write_bytes(b"".join(lines[:2]) + lines[2][:kept])
        assert list(read_lines(path, Answer)) == answers(2)
        append_lines(path, answers(3)[2:])
        assert path.read_bytes() == b"".join(lines)


def test_a_torn_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "part-0.jsonl"
    lines = [to_line(answer) for answer in answers(3)]
    path.write_text(lines[0] + lines[1][:20] + "\n" + lines[2])
    with pytest.raises(RecordsError, match=r"Line 2 of .*part-0.jsonl is no answer .*remove that line"):
        list(read_lines(path, Answer))
    path.write_text(to_line(SAMPLE))
    with pytest.raises(RecordsError, match=r"Line 1 of .* is no answer"):
        list(read_lines(path, Answer))


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Sample, "kind", "odd"),
        (Sample, "image_mode", "sepia"),
        (Verdict, "label", "Unsafe"),
        (Verdict, "response_class", "help"),
    ],
)
def test_a_word_that_no_record_has_is_named(tmp_path, kind, field, value):
    verdict = Verdict("k", "a", "toy/test/1", "real", "judge", "r1", "safe", "refusal")
    row = dataclasses.asdict(SAMPLE if kind is Sample else verdict)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row | {field: value}) + "\n")
    with pytest.raises(RecordsError, match=f"Line 2 of .* \\({field} '{value}' is none of "):
        list(read_lines(path, kind))
