"""Answer questions about pictures: `question_id, text, image?` a line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llava.eval.command_line import run
from llava.eval.generation import add_flags, ask_all, load_llava
from llava.eval.questions import read_questions


def parser(max_new_tokens: int = 1024) -> argparse.ArgumentParser:
    """The command line, with the longest answer by default."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--question-file", default="tables/question.jsonl", help="JSON lines")
    flags.add_argument("--answers-file", default="answer.jsonl", help="JSON lines to write, or to go on with")
    add_flags(flags, conv_mode="llava_v1", max_new_tokens=max_new_tokens)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Read, ask, write."""
    answer_questions(parser().parse_args(argv))


def answer_questions(args: argparse.Namespace) -> None:
    """What `main` does once the flags are read."""
    ask_all(args, read_questions(args.question_file, args.image_folder), load_llava)


if __name__ == "__main__":
    run(main)
