"""Scorers of free text against the published rules, transcribed a second time, on generated answers."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from llava.eval import eval_textvqa
from llava.eval.command_line import InputError
from llava.eval.m4c_evaluator import (
    EvalAIAnswerProcessor,
    STVQAAccuracyEvaluator,
    STVQAANLSEvaluator,
    TextVQAAccuracyEvaluator,
)
from tests.unit import generated_answers, published_scores

COUNT = 400


def entries(seed: int) -> list[dict]:
    random = Random(f"references {seed}")
    return [
        {"pred_answer": text, "gt_answers": generated_answers.references(random, text)}
        for text in generated_answers.answers(COUNT, seed)
    ]


def test_normalisation():
    process = EvalAIAnswerProcessor()
    texts = [*generated_answers.answers(4 * COUNT, 0), *generated_answers.WORDS]
    seen = [process(text) for text in texts]
    assert seen == [published_scores.normalised(text) for text in texts]
    assert len(set(seen)) > COUNT


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The two Dogs.", "2 dogs"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("5.", "5"),
        ("x-ray", "x ray"),
        ("x-ray - no", "xray no"),
        ("dog's", "dog 's"),
        ("dont", "don't"),
        ("somebody'd", "somebodyd"),
        ("10:30", "10:30"),
        ("." * 33 + "end", ".end"),
        ("line\nbreak\ttab", "line break tab"),
        ("", ""),
    ],
)
def test_normalisation_of_known_answers(text: str, normal: str):
    assert EvalAIAnswerProcessor()(text) == normal == published_scores.normalised(text)


def test_a_processor_does_not_remember():
    process = EvalAIAnswerProcessor()
    before = dict(EvalAIAnswerProcessor.NUMBER_MAP)
    process("eleven twelve")
    assert before == EvalAIAnswerProcessor.NUMBER_MAP


def test_soft_accuracy():
    evaluator = TextVQAAccuracyEvaluator()
    rows = entries(1)
    seen = [evaluator.score(row) for row in rows]
    wanted = [float(published_scores.soft_accuracy(*row.values())) for row in rows]
    assert seen == pytest.approx(wanted, abs=1e-12)
    assert len({round(score, 6) for score in wanted}) >= 5, "0, 0.3, 0.6, 0.9 and 1 must all occur"
    assert evaluator.eval_pred_list(rows) == pytest.approx(sum(wanted) / len(wanted), abs=1e-12)


def test_exact_match():
    evaluator = STVQAAccuracyEvaluator()
    rows = entries(2)
    wanted = [published_scores.exact_match(*row.values()) for row in rows]
    assert [evaluator.eval_pred_list([row]) for row in rows] == wanted
    assert 0.2 < sum(wanted) / len(wanted) < 0.9


def test_similarity():
    evaluator = STVQAANLSEvaluator()
    rows = [
        {
            name: value[:14] if isinstance(value, str) else [text[:14] for text in value]
            for name, value in row.items()
        }
        for row in entries(3)
    ]
    seen = [evaluator.eval_pred_list([row]) for row in rows]
    assert seen == pytest.approx([published_scores.anls(*row.values()) for row in rows], abs=1e-12)
    assert {0.0, 1.0} < set(seen)
    assert evaluator.get_anls("abcd", "abxy") == 0.5, "exactly one half still counts"
    assert evaluator.get_anls("", " ") == 1.0


def test_nothing_to_score_is_refused():
    for evaluator in (TextVQAAccuracyEvaluator(), STVQAAccuracyEvaluator(), STVQAANLSEvaluator()):
        with pytest.raises(InputError, match="no answer to score"):
            evaluator.eval_pred_list([])
    with pytest.raises(InputError, match="9 reference answers"):
        TextVQAAccuracyEvaluator().score({"pred_answer": "", "gt_answers": [""] * 9})


def textvqa_files(folder: Path) -> tuple[str, str, list[dict]]:
    """Annotations and answers whose prompts take all three forms."""
    rows = entries(4)
    instruction = "Answer the question using a single word or phrase."
    forms = (
        f"{{}}\n{instruction}",
        f"{{}}\nReference OCR token: A, B\n{instruction}",
        f"Reference OCR token: A, B\n{{}}\n{instruction}",
        "OCR tokens: A, B. Question: {} Short answer:",
    )
    data, results = [], []
    for index, row in enumerate(rows):
        question = f"What is Number {index % 7}?"
        data.append({"image_id": f"i{index}", "question": question, "answers": row["gt_answers"]})
        prompt = forms[index % 4].format(question)
        results.append({"question_id": f"i{index}", "prompt": prompt, "text": row["pred_answer"]})
    Random(0).shuffle(results)
    annotations = folder / "annotations.json"
    annotations.write_text(json.dumps({"data": data}))
    return str(annotations), generated_answers.write_lines(folder / "llava.jsonl", results), rows


def test_textvqa_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    annotations, results, rows = textvqa_files(tmp_path)
    report = tmp_path / "report.json"
    eval_textvqa.main(
        ["--annotation-file", annotations, "--result-file", results, "--output-path", str(report)]
    )
    wanted = sum(published_scores.soft_accuracy(*row.values()) for row in rows) / len(rows)
    assert capsys.readouterr().out == f"llava\nSamples: {COUNT}\nAccuracy: {100 * float(wanted):.2f}%\n\n"
    written = json.loads(report.read_text())
    assert written["accuracy"] == pytest.approx(float(wanted), abs=1e-12)
    assert (written["samples"], written["questions"], written["unanswered"]) == (COUNT, COUNT, 0)
    assert written["prompts"] == {
        eval_textvqa.OCR_NONE: COUNT // 4,
        eval_textvqa.OCR_REFERENCE: COUNT // 2,
        eval_textvqa.OCR_TOKENS: COUNT // 4,
    }
    assert written["provenance"]["files"]["answers"]["path"] == results
    eval_textvqa.main(["--annotation-file", annotations, "--result-dir", str(tmp_path)])
    assert f"Samples: {COUNT}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"question_id": "i0", "prompt": "one line", "text": ""}, "none of TextVQA's three forms"),
        ({"question_id": "other", "prompt": "q?\nShort.", "text": ""}, "does not have"),
    ],
)
def test_textvqa_refuses_answers_to_something_else(tmp_path: Path, row: dict, sentence: str):
    annotations, _, _ = textvqa_files(tmp_path)
    with pytest.raises(InputError, match=sentence):
        eval_textvqa.score(annotations, generated_answers.write_lines(tmp_path / "bad.jsonl", [row]))
