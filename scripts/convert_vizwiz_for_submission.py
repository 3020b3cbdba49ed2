"""Answers to VizWiz as its server takes them: one for each picture, normalised."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llava.eval.command_line import InputError, run
from llava.eval.json_files import read_json_lines, write_json
from llava.eval.m4c_evaluator import EvalAIAnswerProcessor


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument(
        "--annotation-file", required=True, help="the questions, JSON lines: question_id, image"
    )
    flags.add_argument("--result-file", required=True, help="answers, JSON lines")
    flags.add_argument("--result-upload-file", required=True, help="JSON to write: image, answer")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Convert a file.

    Raises:
        InputError: a question has no answer: the server would refuse the file.
    """
    args = parser().parse_args(argv)
    asked = read_json_lines(args.annotation_file)
    said = {row["question_id"]: row["text"] for row in read_json_lines(args.result_file)}
    print(f"total results: {len(said)}, total split: {len(asked)}")
    unanswered = [row["question_id"] for row in asked if row["question_id"] not in said]
    if unanswered:
        raise InputError(
            f"'{args.result_file}' lacks {len(unanswered)} of {len(asked)} answers, the first to "
            f"{unanswered[0]!r}; run its command again, it goes on where it stopped."
        )
    process = EvalAIAnswerProcessor()
    answers = [{"image": row["image"], "answer": process(said[row["question_id"]])} for row in asked]
    write_json(args.result_upload_file, answers)


if __name__ == "__main__":
    run(main)
