"""Answers to MME as tables of its own kit: `picture, question, truth, answer` between tabs, a file a task."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from llava.eval.command_line import InputError, run
from llava.eval.json_files import read_json_lines, read_text, write_text

INSTRUCTION = "Answer the question using a single word or phrase."
SUFFIX = "Please answer yes or no."


def read_truths(folder: Path) -> dict[tuple[str, str, str], str]:
    """(task, file, question) -> Yes or No; of each task's folder, or its `questions_answers_YN`.

    Raises:
        InputError: the folder holds no task, or a line is no question and answer.
    """
    truths = {}
    for task in sorted(path for path in folder.glob("*") if path.is_dir()):
        inner = task / "questions_answers_YN"
        for file in sorted((inner if inner.is_dir() else task).glob("*.txt")):
            for line in filter(str.strip, read_text(file).split("\n")):
                question, tab, truth = line.strip().rpartition("\t")
                if not tab:
                    raise InputError(f"'{file}' has the line {line!r}, which is no question, tab and answer.")
                truths[task.name, file.name, question] = truth
    if not truths:
        raise InputError(f"'{folder}' holds no task of MME; pass MME_Benchmark_release_version.")
    return truths


def asked_as(prompt: str) -> list[str]:
    """The forms in which MME's own files may have the question of a prompt."""
    question = prompt.replace(INSTRUCTION, "").strip()
    return [question] if SUFFIX in question else [f"{question} {SUFFIX}", f"{question}  {SUFFIX}"]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    add = flags.add_argument
    add(
        "--experiment",
        required=True,
        help="reads answers/EXPERIMENT.jsonl, writes eval_tool/answers/EXPERIMENT",
    )
    add("--base-dir", default=".", help="MME's folder, which these and MME_Benchmark_release_version lie in")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Convert a file.

    Raises:
        InputError: an answer's question is not MME's.
    """
    args = parser().parse_args(argv)
    base = Path(args.base_dir)
    truths = read_truths(base / "MME_Benchmark_release_version")
    source = base / "answers" / f"{args.experiment}.jsonl"
    tables = defaultdict(list)
    for row in read_json_lines(source):
        task, _, name = row["question_id"].partition("/")
        file = name.rpartition("/")[2].split(".")[0] + ".txt"
        forms = asked_as(row["prompt"])
        question = next((form for form in forms if (task, file, form) in truths), None)
        if question is None:
            raise InputError(
                f"'{source}' answers {row['question_id']!r} with a question that MME does not "
                f"ask ({forms[0]!r})."
            )
        # A tab or a new line inside an answer would be read as the next field or row.
        answer = " ".join(row["text"].split())
        tables[task].append("\t".join((file, question, truths[task, file, question], answer)) + "\n")
    for task, lines in tables.items():
        write_text(base / "eval_tool" / "answers" / args.experiment / f"{task}.txt", "".join(lines))


if __name__ == "__main__":
    run(main)
