"""Score answers to ScienceQA, where an answer is the letter of an option."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.command_line import InputError, run
from llava.eval.json_files import read_json, read_json_lines, write_json
from llava.eval.provenance import write_report

FAILED = "FAILED"
_SENTENCE = re.compile(r"The answer is ([A-Z]).")


def parse_letter(text: str, options: Sequence[str]) -> str:
    """The letter that an answer gives, or FAILED.

    An answer is a letter, starts with a letter and `. `, or says `The answer is X.` exactly once.
    """
    if text in tuple(options):
        return text
    if len(text) >= 3 and text[0] in options and text[1:3] == ". ":
        return text[0]
    found = _SENTENCE.findall(text)
    return found[0] if len(found) == 1 else FAILED


def get_pred_idx(prediction: str, choices: Sequence[str], options: Sequence[str]) -> int:
    """Index of a letter among a question's choices; -1 if it is none of theirs."""
    letters = list(options[: len(choices)])
    return letters.index(prediction) if prediction in letters else -1


def analyse(
    identity: str, problem: Mapping[str, Any], answer: Mapping[str, Any] | None, options: Sequence[str]
) -> dict[str, Any]:
    """What one question's answer was taken for."""
    text = FAILED if answer is None else answer["text"]
    prompt = "Unknown" if answer is None else answer["prompt"]
    # Of an unanswered question only the problem itself can say whether there was a picture.
    seen = bool(problem.get("image")) if answer is None else DEFAULT_IMAGE_TOKEN in prompt
    return {
        "question_id": identity,
        "parsed_ans": parse_letter(text, options),
        "ground_truth": options[problem["answer"]],
        "question": prompt,
        "pred": text,
        "is_multimodal": seen,
    }


def score(
    problems: Mapping[str, Mapping[str, Any]], answers: Sequence[Mapping[str, Any]], options: Sequence[str]
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Numbers, and the analyses of right and of wrong answers; a question without an answer is wrong.

    Args:
        problems: id -> `choices, answer, image` of the questions that count.
        answers: rows `question_id, prompt, text`; the last one of a question counts.
        options: letters.

    Raises:
        InputError: no question counts.
    """
    if not problems:
        raise InputError("The split holds no question; pass another --split.")
    said = {row["question_id"]: row for row in answers}
    results, indices, outputs = {"correct": [], "incorrect": []}, {}, {}
    for identity, problem in problems.items():
        analysis = analyse(identity, problem, said.get(identity), options)
        indices[identity] = get_pred_idx(analysis["parsed_ans"], problem["choices"], options)
        outputs[identity] = analysis["pred"]
        right = indices[identity] == problem["answer"]
        results["correct" if right else "incorrect"].append(analysis)
    correct, count = len(results["correct"]), len(problems)
    seen = {side: sum(row["is_multimodal"] for row in rows) for side, rows in results.items()}
    numbers = {
        "acc": correct / count * 100,
        "correct": correct,
        "count": count,
        "image_correct": seen["correct"],
        "image_count": sum(seen.values()),
        "unanswered": len(problems.keys() - said.keys()),
        "unparseable": sum(row["parsed_ans"] == FAILED for rows in results.values() for row in rows),
        "results": indices,
        "outputs": outputs,
    }
    return numbers, results


def summary(numbers: Mapping[str, Any]) -> str:
    """The line that ScienceQA's users know."""
    seen = numbers["image_count"]
    image = f"{numbers['image_correct'] / seen * 100:.2f}%" if seen else "none (no question has a picture)"
    return (
        f"Total: {numbers['count']}, Correct: {numbers['correct']}, Accuracy: {numbers['acc']:.2f}%, "
        f"IMG-Accuracy: {image}"
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    add = flags.add_argument
    add("--base-dir", required=True, help="folder with problems.json and pid_splits.json")
    add("--result-file", required=True, help="a model's answers")
    add("--output-file", required=True, help="JSON to write: right and wrong answers, one by one")
    add("--output-result", required=True, help="JSON to write: accuracy, indices, outputs")
    add("--split", default="test", help="of pid_splits.json")
    add("--options", type=list, default=list("ABCDE"), help="letters, as ABCDE")
    add("--output-path", default=None, help="JSON to write: numbers and where they come from")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Score a split."""
    args = parser().parse_args(argv)
    base = Path(args.base_dir)
    splits, problems = read_json(base / "pid_splits.json"), read_json(base / "problems.json")
    if args.split not in splits:
        raise InputError(f"--split is '{args.split}'; '{args.base_dir}' has {', '.join(splits)}.")
    chosen = {identity: problems[identity] for identity in splits[args.split]}
    numbers, results = score(chosen, read_json_lines(args.result_file), args.options)
    print(summary(numbers))
    write_json(args.output_file, results, indent=2)
    kept = ("acc", "correct", "count", "results", "outputs")
    write_json(args.output_result, {name: numbers[name] for name in kept}, indent=2)
    write_report(
        args.output_path,
        f"ScienceQA {args.split}",
        {name: value for name, value in numbers.items() if name not in ("results", "outputs")},
        answers=args.result_file,
        references={name: base / f"{name}.json" for name in ("problems", "pid_splits")},
    )


if __name__ == "__main__":
    run(main)
