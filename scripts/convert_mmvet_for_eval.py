"""Answers to MM-Vet as its online evaluator takes them: {"v1_<id>": text}."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llava.eval.command_line import run
from llava.eval.json_files import read_json_lines, write_json


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--src", required=True, help="answers, JSON lines")
    flags.add_argument("--dst", required=True, help="JSON to write")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Convert a file."""
    args = parser().parse_args(argv)
    rows = read_json_lines(args.src)
    write_json(args.dst, {f"v1_{row['question_id']}": row["text"] for row in rows}, indent=2)


if __name__ == "__main__":
    run(main)
