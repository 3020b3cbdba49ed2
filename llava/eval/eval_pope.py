"""Score answers to POPE: is an object in the picture, yes or no, for each way of choosing absent objects."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llava.eval.command_line import InputError, run
from llava.eval.json_files import read_json_lines
from llava.eval.provenance import write_report

PREFIX = "coco_pope_"


def says_yes(text: str) -> bool:
    """An answer is a yes unless `No`, `no` or `not` is a word of its first sentence."""
    words = text.split(".", 1)[0].replace(",", "").split(" ")
    return not {"No", "not", "no"} & set(words)


@dataclass(frozen=True, slots=True)
class Counts:
    """Answers by truth; a yes is the positive. Ratios without a denominator are 0."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def total(self) -> int:
        """All answers."""
        return self.true_positive + self.false_positive + self.true_negative + self.false_negative

    @property
    def accuracy(self) -> float:
        """Right answers of all."""
        return _ratio(self.true_positive + self.true_negative, self.total)

    @property
    def precision(self) -> float:
        """Right ones of the answers yes."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Right ones of the questions whose truth is yes."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.precision * self.recall, self.precision + self.recall)

    @property
    def yes_ratio(self) -> float:
        """Answers yes of all."""
        return _ratio(self.true_positive + self.false_positive, self.total)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def count(answers_and_truths: Iterable[tuple[str, bool]]) -> Counts:
    """Count pairs of an answer's text and whether yes is right."""
    table = {(said, truth): 0 for said in (True, False) for truth in (True, False)}
    for text, truth in answers_and_truths:
        table[says_yes(text), truth] += 1
    return Counts(table[True, True], table[True, False], table[False, False], table[False, True])


def truths(
    questions: Sequence[Mapping[str, Any]], labels: Sequence[Mapping[str, Any]], name: str
) -> dict[Any, bool]:
    """Question id -> whether yes is right.

    A label is found by picture and question. Where that cannot be, the two files must be equally long and, if
    the labels name pictures, name the same ones in the same order.

    Args:
        questions: of one category: `question_id, image, text`, the question being the text's first line.
        labels: `label`, and `image, text` as POPE publishes them.
        name: of the labels' file.

    Raises:
        InputError: a question has no label, or two that differ.
    """
    known: dict[Any, bool] = {}
    for row in labels:
        key, yes = _key(row), row["label"] != "no"
        if known.setdefault(key, yes) != yes and None not in key:
            raise InputError(f"'{name}' says yes and no to '{row['text']}' of {row['image']}; repair it.")
    wanted = {row["question_id"]: _key(row) for row in questions}
    if all(None not in key and key in known for key in wanted.values()):
        return {identity: known[key] for identity, key in wanted.items()}
    pictures = [{row.get("image") for row in pair} - {None} for pair in zip(questions, labels, strict=False)]
    if len(labels) != len(questions) or any(len(named) > 1 for named in pictures):
        raise InputError(
            f"The {len(labels)} labels of '{name}' are not those of the {len(questions)} questions of its "
            "category; pass the labels that belong to these questions."
        )
    return {row["question_id"]: label["label"] != "no" for row, label in zip(questions, labels, strict=True)}


def _key(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    text = row.get("text")
    return row.get("image"), None if text is None else text.split("\n")[0].strip()


def print_counts(counts: Counts) -> None:
    """The lines that POPE's users know."""
    print("TP\tFP\tTN\tFN\t")
    print(f"{counts.true_positive}\t{counts.false_positive}\t{counts.true_negative}\t{counts.false_negative}")
    print(f"Accuracy: {counts.accuracy}")
    print(f"Precision: {counts.precision}")
    print(f"Recall: {counts.recall}")
    print(f"F1 score: {counts.f1}")
    print(f"Yes ratio: {counts.yes_ratio}")
    line = (counts.f1, counts.accuracy, counts.precision, counts.recall, counts.yes_ratio)
    print(", ".join(f"{number:.3f}" for number in line))


def score_category(
    category: str,
    label_file: Path,
    questions: Sequence[Mapping[str, Any]],
    answers: Mapping[Any, str],
) -> dict[str, Any]:
    """Print and return the numbers of one category; unanswered questions count for nothing but are told."""
    asked = [row for row in questions if row.get("category") == category]
    right = truths(asked, read_json_lines(label_file), str(label_file))
    answered = [row["question_id"] for row in asked if row["question_id"] in answers]
    print(f"Category: {category}, # samples: {len(answered)}")
    counts = count((answers[identity], right[identity]) for identity in answered)
    print_counts(counts)
    print("====================================")
    ratios = ("accuracy", "precision", "recall", "f1", "yes_ratio")
    return {
        **asdict(counts),
        **{name: getattr(counts, name) for name in ratios},
        "samples": len(answered),
        "questions": len(asked),
        "unanswered": len(asked) - len(answered),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    add = flags.add_argument
    add("--annotation-dir", required=True, help=f"folder of {PREFIX}CATEGORY.json, one label a line")
    add("--question-file", required=True, help="JSON lines: question_id, image, text, category")
    add("--result-file", required=True, help="a model's answers")
    add("--output-path", default=None, help="JSON to write")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Score every category that has labels."""
    args = parser().parse_args(argv)
    questions = read_json_lines(args.question_file)
    identities = {row["question_id"] for row in questions}
    answers: dict[Any, str] = {}
    for row in read_json_lines(args.result_file):
        identity = row["question_id"]
        if identity not in identities or identity in answers:
            reason = "twice" if identity in answers else "which nobody asked"
            raise InputError(
                f"'{args.result_file}' answers question {identity!r} {reason}; pass answers to "
                f"'{args.question_file}', one each."
            )
        answers[identity] = row["text"]
    label_files = sorted(Path(args.annotation_dir).glob(f"{PREFIX}*.json"))
    if not label_files:
        raise InputError(f"'{args.annotation_dir}' holds no {PREFIX}CATEGORY.json; pass POPE's labels.")
    numbers = {}
    for file in label_files:
        category = file.stem.removeprefix(PREFIX)
        numbers[category] = score_category(category, file, questions, answers)
    write_report(
        args.output_path,
        "POPE",
        {"categories": numbers},
        answers=args.result_file,
        references={"questions": args.question_file, **{file.stem: file for file in label_files}},
    )


if __name__ == "__main__":
    run(main)
