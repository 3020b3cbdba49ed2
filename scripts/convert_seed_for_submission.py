"""Score answers to SEED-Bench, by kind of question and of data, and write what its leaderboard takes."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llava.eval.command_line import InputError, run
from llava.eval.json_files import read_json, read_json_lines, write_json_lines
from llava.eval.provenance import write_report


def identity_of(question: Mapping[str, Any]) -> Any:
    """A question's id as the answers have it: a number where it is one."""
    identity = question["question_id"]
    return int(identity) if str(identity).isdecimal() else identity


def count(
    questions: Sequence[Mapping[str, Any]], said: Mapping[Any, str], by: str
) -> dict[Any, tuple[int, int]]:
    """(right, asked) of each value of the questions' field `by`; the letter must be exact."""
    asked = Counter(question[by] for question in questions)
    right = Counter(
        question[by] for question in questions if said.get(identity_of(question)) == question["answer"]
    )
    return {value: (right[value], asked[value]) for value in sorted(asked)}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--annotation-file", required=True, help="SEED-Bench.json")
    flags.add_argument("--result-file", required=True, help="answers, JSON lines")
    flags.add_argument(
        "--result-upload-file", required=True, help="JSON lines to write: question_id, prediction"
    )
    flags.add_argument("--output-path", default=None, help="JSON to write: the numbers")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Print the accuracies and write the submission.

    Raises:
        InputError: a question has no answer, which the leaderboard does not take; the accuracies are printed.
    """
    args = parser().parse_args(argv)
    data = read_json(args.annotation_file)
    questions = data["questions"]
    if not questions:
        raise InputError(f"'{args.annotation_file}' holds no question; pass SEED-Bench.json.")
    said = {identity_of(row): row["text"] for row in read_json_lines(args.result_file)}
    names = {number: name for name, number in data["question_type"].items()}
    kinds = {names[kind]: pair for kind, pair in count(questions, said, "question_type_id").items()}
    media = count(questions, said, "data_type")
    total = (sum(right for right, _ in kinds.values()), len(questions))
    for name, (right, asked) in kinds.items():
        print(f"{name}: {right / asked * 100:.2f}%")
    print(f"Total accuracy: {total[0] / total[1] * 100:.2f}%")
    for name, (right, asked) in media.items():
        print(f"{name} accuracy: {right / asked * 100:.2f}%")
    unanswered = [q["question_id"] for q in questions if identity_of(q) not in said]
    numbers = {
        "total": _ratio(total),
        "question_types": {name: _ratio(pair) for name, pair in kinds.items()},
        "data_types": {name: _ratio(pair) for name, pair in media.items()},
        "unanswered": len(unanswered),
    }
    references = {"annotations": args.annotation_file}
    write_report(args.output_path, "SEED-Bench", numbers, answers=args.result_file, references=references)
    if unanswered:
        raise InputError(
            f"'{args.result_file}' lacks {len(unanswered)} of {total[1]} answers, the first to "
            f"{unanswered[0]!r}: no submission was written; run its command again to get them."
        )
    write_json_lines(
        args.result_upload_file,
        ({"question_id": q["question_id"], "prediction": said[identity_of(q)]} for q in questions),
    )


def _ratio(pair: tuple[int, int]) -> dict[str, float]:
    right, asked = pair
    return {"right": right, "questions": asked, "accuracy": right / asked}


if __name__ == "__main__":
    run(main)
