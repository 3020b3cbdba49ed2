"""Answers to VQAv2 as EvalAI takes them: every question of the split, normalised, empty where unanswered."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from llava.eval.command_line import run
from llava.eval.json_files import read_json_lines, write_json
from llava.eval.m4c_evaluator import EvalAIAnswerProcessor

QUESTIONS = "llava_vqav2_mscoco_test2015.jsonl"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--dir", default="./playground/data/eval/vqav2", help=f"folder of {QUESTIONS}")
    flags.add_argument("--ckpt", required=True, help="reads answers/SPLIT/CKPT/merge.jsonl")
    flags.add_argument("--split", required=True, help="writes answers_upload/SPLIT/CKPT.json")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Convert a split."""
    args = parser().parse_args(argv)
    folder = Path(args.dir)
    rows = read_json_lines(folder / "answers" / args.split / args.ckpt / "merge.jsonl")
    said = {row["question_id"]: row["text"] for row in rows}
    asked = [row["question_id"] for row in read_json_lines(folder / QUESTIONS)]
    process = EvalAIAnswerProcessor()
    answers = [
        {"question_id": identity, "answer": process(said[identity]) if identity in said else ""}
        for identity in asked
    ]
    print(
        f"total results: {len(said)}, total split: {len(asked)}, unanswered: {len(set(asked) - said.keys())}"
    )
    write_json(folder / "answers_upload" / args.split / f"{args.ckpt}.json", answers)


if __name__ == "__main__":
    run(main)
