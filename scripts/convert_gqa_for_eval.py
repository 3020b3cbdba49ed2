"""Answers to GQA as its own eval.py reads them: lower case, without the final stop."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llava.eval.command_line import run
from llava.eval.json_files import read_json_lines, write_json


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--src", required=True, help="answers, JSON lines")
    flags.add_argument("--dst", required=True, help="JSON to write: questionId, prediction")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Convert a file."""
    args = parser().parse_args(argv)
    rows = read_json_lines(args.src)
    write_json(
        args.dst,
        [{"questionId": row["question_id"], "prediction": row["text"].rstrip(".").lower()} for row in rows],
    )


if __name__ == "__main__":
    run(main)
