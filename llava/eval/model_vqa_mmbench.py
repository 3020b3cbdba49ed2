"""Answer MMBench: a table of questions with options and pictures inside."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llava.eval.command_line import InputError, run
from llava.eval.generation import add_flags, ask_all, load_llava
from llava.eval.mmbench_table import OPTIONS, is_none, options_of, read_table
from llava.eval.model_vqa_science import LETTER_PROMPT
from llava.eval.questions import Question

if TYPE_CHECKING:
    from PIL.Image import Image

LETTER_PROMPTS = {"en": LETTER_PROMPT, "cn": "请直接回答选项字母。"}


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A picture file in base64."""

    name: str
    data: str

    def exists(self) -> bool:
        """It is in the table."""
        return True

    def open(self) -> Image:
        """The RGB picture."""
        from llava.mm_utils import load_image_from_base64

        return load_image_from_base64(self.data).convert("RGB")


def read_questions(
    question_file: str, *, all_rounds: bool, single_pred_prompt: bool, lang: str
) -> list[Question]:
    """One question a row, or one for each option in turn at the first place.

    Raises:
        InputError: the file is none of MMBench.
    """
    suffix = f"\n{LETTER_PROMPTS[lang]}" if single_pred_prompt else ""
    return [
        question
        for row in read_table(question_file)
        for question in _rounds(row, all_rounds, suffix, question_file)
    ]


def _rounds(row: Mapping[str, Any], all_rounds: bool, suffix: str, file: str) -> Iterator[Question]:
    if is_none(row.get("image")):
        raise InputError(f"Row {row['index']} of '{file}' has no picture; pass a .tsv file of MMBench.")
    options = options_of(row)
    letters = list(OPTIONS[: len(options)])
    hint = "" if is_none(row.get("hint")) else f"{row['hint']}\n"
    picture = EncodedPicture(f"the picture of row {row['index']}", row["image"])
    for turn in range(len(options) if all_rounds else 1):
        turned = options[turn:] + options[:turn]
        listed = "".join(f"\n{letter}. {option}" for letter, option in zip(letters, turned, strict=True))
        said = f"{hint}{row['question']}{listed}"
        key = {"question_id": row["index"], "round_id": turn}
        extra = {"options": turned, "option_char": letters[turn:] + letters[:turn]}
        yield Question(key, said, said + suffix, (picture,), extra)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--question-file", default="tables/question.jsonl", help="MMBench's .tsv")
    flags.add_argument("--answers-file", default="answer.jsonl", help="JSON lines to write, or to go on with")
    flags.add_argument(
        "--all-rounds", action="store_true", help="ask once for each option in the first place"
    )
    flags.add_argument("--single-pred-prompt", action="store_true", help="ask for the option's letter alone")
    flags.add_argument("--lang", default="en", choices=sorted(LETTER_PROMPTS), help="of that sentence")
    add_flags(flags, conv_mode="llava_v1", max_new_tokens=1024)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Read, ask, write."""
    args = parser().parse_args(argv)
    questions = read_questions(
        args.question_file,
        all_rounds=args.all_rounds,
        single_pred_prompt=args.single_pred_prompt,
        lang=args.lang,
    )
    ask_all(args, questions, load_llava)


if __name__ == "__main__":
    run(main)
