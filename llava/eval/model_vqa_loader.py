"""`model_vqa` for benchmarks of short answers, 128 tokens at most by default."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llava.eval import model_vqa
from llava.eval.command_line import run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return model_vqa.parser(max_new_tokens=128)


def main(argv: Sequence[str] | None = None) -> None:
    """Read, ask, write."""
    model_vqa.answer_questions(parser().parse_args(argv))


if __name__ == "__main__":
    run(main)
