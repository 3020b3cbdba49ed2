"""Put the answers of all chunks into one file, and refuse where some are missing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from llava.eval.answers_file import record_path
from llava.eval.command_line import InputError, run
from llava.eval.json_files import read_json, read_json_lines, write_json, write_json_lines

OF_ONE_CHUNK = {"number_of_questions", "questions_digest", "chunk", "first_prompt"}


def merge(files: Sequence[str], output_file: str) -> int:
    """Write the rows of `files`, in that order; returns how many.

    Beside them goes the record of how they were made, where every chunk has one.

    Raises:
        InputError: a chunk is not complete, or was made with other settings than the first.
    """
    rows: list[Any] = []
    records = []
    for file in files:
        chunk = read_json_lines(file)
        rows += chunk
        if not record_path(file).is_file():  # made by upstream
            continue
        record = read_json(record_path(file))
        settings = record["settings"]
        records.append(record)
        if len(chunk) != settings["number_of_questions"]:
            raise InputError(
                f"'{file}' holds {len(chunk)} of {settings['number_of_questions']} answers; run its command "
                "again, it goes on from there."
            )
        first = records[0]["settings"]
        other = [name for name in first if name not in OF_ONE_CHUNK and first[name] != settings.get(name)]
        if other:
            raise InputError(
                f"'{file}' was made with another {other[0]} than '{files[0]}'; merge what belongs together."
            )
    write_json_lines(output_file, rows)
    if records and len(records) == len(files):
        settings = {**records[0]["settings"], "number_of_questions": len(rows), "chunk": "all"}
        settings["questions_digest"] = [record["settings"]["questions_digest"] for record in records]
        starts = [start for record in records for start in record["starts"]]
        write_json(record_path(output_file), {"settings": settings, "starts": starts}, indent=1)
    return len(rows)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("files", nargs="+", metavar="CHUNK", help="answers of the chunks, in order")
    flags.add_argument("--output-file", required=True, help="JSON lines to write")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Merge and say how much."""
    args = parser().parse_args(argv)
    print(f"{args.output_file}: {merge(args.files, args.output_file)} answers")


if __name__ == "__main__":
    run(main)
