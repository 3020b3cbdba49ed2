"""LLaVA's TextVQA questions without the line of OCR tokens that they come with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llava.eval.command_line import InputError, run
from llava.eval.json_files import read_json_lines, write_json_lines

TOKENS = "Reference OCR token:"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--src", required=True, help="llava_textvqa_val_v051_ocr.jsonl")
    flags.add_argument("--dst", required=True, help="JSON lines to write")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Convert a file.

    Raises:
        InputError: a question has no such line.
    """
    args = parser().parse_args(argv)
    rows = []
    for number, row in enumerate(read_json_lines(args.src), 1):
        lines = row["text"].split("\n")
        kept = [line for line in lines if not line.startswith(TOKENS)]
        if len(kept) != len(lines) - 1:
            raise InputError(
                f"Row {number} of '{args.src}' has {len(lines) - len(kept)} lines '{TOKENS} ...'; "
                "it must have one."
            )
        rows.append({**row, "text": "\n".join(kept)})
    write_json_lines(args.dst, rows)


if __name__ == "__main__":
    run(main)
