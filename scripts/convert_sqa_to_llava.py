"""ScienceQA as conversations to train on, or as instructions in JSON lines.

    python scripts/convert_sqa_to_llava.py convert_to_llava --base-dir FOLDER --split train

FOLDER holds problems.json and pid_splits.json. A format such as QCM-LEA says what the question has before the
dash and the answer behind it: Q question, C context, M options, L lecture, E explanation, A answer; LEPA has
the last three in sections.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.command_line import InputError, run
from llava.eval.json_files import read_json, write_json, write_json_lines

LETTERS = "ABCDE"
SOLVED = "BECAUSE:"
INPUTS = ("CQM", "QCM", "QCML", "QCME", "QCMLE", "QCLM", "QCEM", "QCLEM")
# ScienceQA's own code: where one reason stands behind the answer, AL has the explanation, AE the lecture.
REASONS = {"AL": "E", "AE": "L", "ALE": "LE", "AEL": "EL", "LA": "L", "EA": "E", "LEA": "LE", "ELA": "EL"}
OUTPUTS = ("A", *REASONS, "LEPA")


def _words_of(problem: Mapping[str, Any]) -> dict[str, str]:
    """What each letter of a format stands for."""
    options = (f"({letter}) {choice}" for letter, choice in zip(LETTERS, problem["choices"], strict=False))
    return {
        "Q": problem["question"],
        "C": problem["hint"].strip() or "N/A",
        "M": " ".join(options),
        "L": problem["lecture"].replace("\\n", "\n"),
        "E": problem["solution"].replace("\\n", "\n"),
        "A": LETTERS[problem["answer"]],
    }


def _tidy(text: str) -> str:
    text = text.replace("  ", " ").strip()
    return text.replace(SOLVED, "").strip() if text.endswith(SOLVED) else text


def _bare(text: str, name: str) -> str:
    """Without the name that it begins with, which then goes everywhere, as in the published files."""
    return text.replace(name, "") if text.startswith(name) else text


def question(words: Mapping[str, str], form: str) -> str:
    """The lines of a question; the first one bare if it is the question itself."""
    names = {"Q": "Question", "C": "Context", "M": "Options"}
    reasons = [letter for letter in form if letter in "LE"]
    lines = []
    for letter in form:
        if letter in names:
            lines.append(f"{names[letter]}: {words[letter]}\n")
        elif letter == reasons[0]:
            lines.append(f"{SOLVED} {' '.join(words[reason] for reason in reasons)}\n")
    return _bare(_tidy("".join(lines)), "Question: ")


def answer(words: Mapping[str, str], form: str) -> str:
    """The answer, with its reasons behind or before it."""
    if form == "LEPA":
        named = {"LECTURE": words["L"], "SOLUTION": words["E"]}
        sections = (f"{name}: {text}\n" for name, text in named.items() if text.strip())
        return _tidy("".join(sections) + f"###\nANSWER: {words['A']}.")
    parts = [words[letter] for letter in REASONS.get(form, "")]
    said = f"The answer is {words['A']}."
    parts = [*([said, SOLVED] if parts else [said]), *parts] if form.startswith("A") else [*parts, said]
    return _bare(_tidy(" ".join(["Answer:", *parts])), "Answer: ")


def _examples(base_dir: str, split: str, prompt_format: str) -> list[tuple[str, str | None, str, str]]:
    """(id, picture, question, answer) of a split."""
    asked, _, answered = prompt_format.partition("-")
    if asked not in INPUTS or answered not in OUTPUTS:
        raise InputError(
            f"--prompt-format is '{prompt_format}'; pass one of {', '.join(INPUTS)}, a dash, and one of "
            f"{', '.join(OUTPUTS)}."
        )
    problems, splits = (read_json(Path(base_dir) / name) for name in ("problems.json", "pid_splits.json"))
    if split not in splits:
        raise InputError(f"--split is '{split}'; '{base_dir}' has {', '.join(splits)}.")
    examples = []
    for identity in splits[split]:
        problem = problems[identity]
        words = _words_of(problem)
        # The folder of a picture is its question's id.
        picture = os.path.join(identity, problem["image"]) if problem.get("image") else None
        text = question(words, asked) + ("\n<image>" if picture else "")
        examples.append((identity, picture, text, answer(words, answered)))
    return examples


def convert_to_llava(base_dir: str, split: str, prompt_format: str = "QCM-LEPA") -> str:
    """Write `llava_SPLIT_FORMAT.json`, conversations; returns its path."""
    rows = [
        {
            "id": identity,
            **({"image": picture} if picture else {}),
            "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": reply}],
        }
        for identity, picture, text, reply in _examples(base_dir, split, prompt_format)
    ]
    path = Path(base_dir) / f"llava_{split}_{prompt_format}.json"
    write_json(path, rows, indent=2)
    print(f"Number of samples: {len(rows)}")
    return str(path)


def convert_to_jsonl(base_dir: str, split: str, prompt_format: str = "QCM-LEPA") -> str:
    """Write `scienceqa_SPLIT_FORMAT.jsonl`, instructions and outputs; returns its path."""
    rows = [
        {"id": identity, **({"image": picture} if picture else {}), "instruction": text, "output": reply}
        for identity, picture, text, reply in _examples(base_dir, split, prompt_format)
    ]
    path = Path(base_dir) / f"scienceqa_{split}_{prompt_format}.jsonl"
    write_json_lines(path, rows)
    return str(path)


COMMANDS: dict[str, Callable[..., str]] = {
    "convert_to_llava": convert_to_llava,
    "convert_to_jsonl": convert_to_jsonl,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("command", choices=COMMANDS)
    flags.add_argument("--base-dir", "--base_dir", required=True, help="ScienceQA's data")
    flags.add_argument("--split", required=True, help="train, val, minival, test, minitest, trainval")
    flags.add_argument("--prompt-format", "--prompt_format", default="QCM-LEPA", help="see above")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Convert a split."""
    args = parser().parse_args(argv)
    COMMANDS[args.command](args.base_dir, args.split, args.prompt_format)


if __name__ == "__main__":
    run(main)
