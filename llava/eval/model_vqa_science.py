"""Answer ScienceQA: a JSON list of `id, image?, conversations`, whose first turn is the question."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.command_line import InputError, run
from llava.eval.generation import add_flags, ask_all, load_llava
from llava.eval.json_files import read_json
from llava.eval.questions import Question, picture_files

LETTER_PROMPT = "Answer with the option's letter from the given choices directly."


def read_questions(question_file: str, image_folder: str, single_pred_prompt: bool) -> list[Question]:
    """Questions with and without a picture.

    Raises:
        InputError: the file is none of ScienceQA in LLaVA's format.
    """
    questions = []
    rows = read_json(question_file)
    if not isinstance(rows, list):
        raise InputError(f"'{question_file}' holds no JSON list; pass what convert_sqa_to_llava.py writes.")
    for number, row in enumerate(rows, 1):
        try:
            text = row["conversations"][0]["value"].replace(DEFAULT_IMAGE_TOKEN, "").strip()
            key = {"question_id": row["id"]}
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"Row {number} of '{question_file}' has no id or no first turn in conversations; pass what "
                "convert_sqa_to_llava.py writes."
            ) from error
        pictures = picture_files(row, image_folder)
        if single_pred_prompt:
            text = f"{text}\n{LETTER_PROMPT}"
        said = f"{DEFAULT_IMAGE_TOKEN}\n" * len(pictures) + text
        questions.append(Question(key, said, text, pictures))
    return questions


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--question-file", default="tables/question.json", help="JSON list")
    flags.add_argument("--answers-file", default="answer.jsonl", help="JSON lines to write, or to go on with")
    flags.add_argument("--answer-prompter", action="store_true", help="accepted as ever, changes nothing")
    flags.add_argument("--single-pred-prompt", action="store_true", help="ask for the option's letter alone")
    add_flags(flags, conv_mode="llava_v0", max_new_tokens=1024)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Read, ask, write."""
    args = parser().parse_args(argv)
    questions = read_questions(args.question_file, args.image_folder, args.single_pred_prompt)
    ask_all(args, questions, load_llava)


if __name__ == "__main__":
    run(main)
