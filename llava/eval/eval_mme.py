"""MME's tables: accuracy, and accuracy+ (both questions about a picture right), summed over the tasks."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.eval.command_line import InputError, run
from llava.eval.json_files import read_text
from llava.eval.provenance import write_report

TASKS = {
    "Perception": (
        *("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark"),
        *("artwork", "OCR"),
    ),
    "Cognition": ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
}
QUESTIONS_OF_A_PICTURE = 2
START = 4


def says(text: str) -> str:
    """`yes`, `no` or `other`: what the first four characters hold, `yes` before `no`."""
    start = text.lower()[:START]
    return next((word for word in ("yes", "no") if word in start), "other")


def read_task(path: Path) -> list[tuple[str, str, str]]:
    """(picture, truth, answer) of each line `picture, question, truth, answer`, between tabs.

    Raises:
        InputError: the file is missing, or a line is another.
    """
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) != 4 or fields[2].lower() not in ("yes", "no"):
            raise InputError(
                f"Line {number} of '{path}' is not `picture, question, Yes or No, answer` between tabs; make "
                "the file with scripts/convert_answer_to_mme.py."
            )
        rows.append((fields[0], fields[2].lower(), fields[3]))
    return rows


def score_task(path: Path) -> dict[str, Any]:
    """Numbers of one task; an answer that is neither yes nor no is wrong.

    Raises:
        InputError: the file is empty, or a picture has not two questions.
    """
    pictures = defaultdict(list)
    other = 0
    for picture, truth, answer in read_task(path):
        said = says(answer)
        pictures[picture].append(said == truth)
        other += said == "other"
    odd = next((name for name, right in pictures.items() if len(right) != QUESTIONS_OF_A_PICTURE), None)
    if odd is not None or not pictures:
        found = f"{len(pictures[odd])} questions about {odd}" if odd else "no line"
        raise InputError(f"'{path}' holds {found}; MME asks two about each picture: answer all of them.")
    right = [all_right for pair in pictures.values() for all_right in pair]
    accuracy = sum(right) / len(right)
    accuracy_plus = sum(all(pair) for pair in pictures.values()) / len(pictures)
    return {
        "score": 100 * accuracy + 100 * accuracy_plus,
        "accuracy": accuracy,
        "accuracy_plus": accuracy_plus,
        "questions": len(right),
        "pictures": len(pictures),
        "neither_yes_nor_no": other,
    }


def score(results_dir: str | Path) -> dict[str, Any]:
    """Numbers of every task of both halves, and the halves' sums.

    Raises:
        InputError: a task is missing: a sum over fewer would look like a worse model.
    """
    folder = Path(results_dir)
    files = {task: folder / f"{task}.txt" for tasks in TASKS.values() for task in tasks}
    missing = [task for task, file in files.items() if not file.is_file()]
    if missing:
        raise InputError(
            f"'{results_dir}' lacks {len(missing)} of MME's {len(files)} tasks ({', '.join(missing)}); "
            "answer all of them."
        )
    halves = {}
    for half, tasks in TASKS.items():
        numbers = {task: score_task(files[task]) for task in tasks}
        halves[half] = {"total": sum(task["score"] for task in numbers.values()), "tasks": numbers}
    return halves


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--results_dir", required=True, help="folder of TASK.txt")
    flags.add_argument(
        "--answers-file", default=None, help="the JSON lines they were made from, for the record"
    )
    flags.add_argument("--output-path", default=None, help="JSON to write")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables of MME's own kit."""
    args = parser().parse_args(argv)
    halves = score(args.results_dir)
    for half, numbers in halves.items():
        print(f"=========== {half} ===========")
        print("total score:", numbers["total"], "\n")
        for task, found in numbers["tasks"].items():
            print("\t", task, " score:", found["score"])
        print("\n")
    folder = Path(args.results_dir)
    tables = {task: folder / f"{task}.txt" for tasks in TASKS.values() for task in tasks}
    write_report(args.output_path, "MME", halves, answers=args.answers_file, references=tables)


if __name__ == "__main__":
    run(main)
