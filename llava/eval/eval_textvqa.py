"""Score answers to TextVQA: `python -m llava.eval.eval_textvqa --annotation-file A --result-file R`."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.eval.command_line import InputError, run
from llava.eval.json_files import read_json, read_json_lines
from llava.eval.m4c_evaluator import TextVQAAccuracyEvaluator
from llava.eval.provenance import write_report

_SHORT_ANSWER = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)
OCR_TOKENS, OCR_REFERENCE, OCR_NONE = "OCR tokens", "reference OCR tokens", "no OCR tokens"


def question_of(prompt: str) -> tuple[str, str]:
    """The question inside a prompt, in lower case, and which form of prompt it is.

    The forms: `OCR tokens: ... Question: ... Short answer:`; a question with a line `Reference OCR token:
    ...` before or after it and an instruction, three lines; a question and an instruction, two lines.

    Raises:
        InputError: another form.
    """
    lines = prompt.split("\n")
    if prompt.startswith("OCR tokens: "):
        found = _SHORT_ANSWER.search(prompt)
        if found:
            return found.group(1).lower(), OCR_TOKENS
    elif "Reference OCR token: " in prompt and len(lines) == 3:
        return lines[prompt.startswith("Reference OCR token:")].lower(), OCR_REFERENCE
    elif len(lines) == 2:
        return lines[0].lower(), OCR_NONE
    raise InputError(
        f"The prompt {prompt[:80]!r} is none of TextVQA's three forms; pass answers to LLaVA's "
        "TextVQA questions."
    )


def prompt_processor(prompt: str) -> str:
    """The question inside a prompt, in lower case."""
    return question_of(prompt)[0]


def score(annotation_file: str, result_file: str) -> dict[str, Any]:
    """Soft accuracy of a file of answers.

    Returns:
        `accuracy` in [0, 1] over `samples` answers; `questions` that are annotated, of which `unanswered`
        have no answer; `prompts` says how many were of which form: with OCR tokens a model reads less itself.

    Raises:
        InputError: an answer's question is not annotated, or there is no answer.
    """
    annotated = {
        (entry["image_id"], entry["question"].lower()): entry["answers"]
        for entry in read_json(annotation_file)["data"]
    }
    pairs, forms, answered = [], Counter(), set()
    for row in read_json_lines(result_file):
        question, form = question_of(row["prompt"])
        key = (row["question_id"], question)
        if key not in annotated:
            raise InputError(
                f"'{result_file}' answers question {key}, which '{annotation_file}' does not have; pass the "
                "annotations of the split that was asked."
            )
        pairs.append({"pred_answer": row["text"], "gt_answers": annotated[key]})
        forms[form] += 1
        answered.add(key)
    return {
        "accuracy": TextVQAAccuracyEvaluator().eval_pred_list(pairs),
        "samples": len(pairs),
        "questions": len(annotated),
        "unanswered": len(annotated) - len(answered),
        "prompts": dict(forms),
    }


def eval_single(annotation_file: str, result_file: str) -> dict[str, Any]:
    """Score one file and print it."""
    numbers = score(annotation_file, result_file)
    print(Path(result_file).stem)
    print(f"Samples: {numbers['samples']}\nAccuracy: {100 * numbers['accuracy']:.2f}%\n")
    return numbers


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    add = flags.add_argument
    add("--annotation-file", required=True, help="TextVQA_0.5.1_val.json")
    add("--result-file", default=None, help="answers of one model")
    add("--result-dir", default=None, help="or a folder of such files, *.jsonl")
    add("--output-path", default=None, help="JSON to write; with --result-dir the folder for one each")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Score one file, or each of a folder."""
    args = parser().parse_args(argv)
    if args.result_file is None and args.result_dir is None:
        raise InputError("Neither --result-file nor --result-dir was given; pass one of them.")
    if args.result_file is not None:
        numbers = eval_single(args.annotation_file, args.result_file)
        _report(args.output_path, numbers, args.result_file, args.annotation_file)
    if args.result_dir is not None:
        for file in sorted(Path(args.result_dir).glob("*.jsonl")):
            numbers = eval_single(args.annotation_file, str(file))
            path = args.output_path and Path(args.output_path) / f"{file.stem}.json"
            _report(path, numbers, file, args.annotation_file)


def _report(path: Any, numbers: dict[str, Any], answers: Any, annotations: str) -> None:
    write_report(path, "TextVQA", numbers, answers=answers, references={"annotations": annotations})


if __name__ == "__main__":
    run(main)
