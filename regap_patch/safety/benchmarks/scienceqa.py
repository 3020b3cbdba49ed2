"""ScienceQA-IMG: the test questions that have a picture, answered by a letter."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from regap_patch.records import Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark, Report
from regap_patch.safety.benchmarks.data_folder import DataFolder, Row
from regap_patch.safety.benchmarks.scoring import from_llava

QUESTIONS, PROBLEMS = "llava_test_CQM-A.json", "problems.json"
PICTURES = "images/test"
LETTERS = "ABCDE"
COUNTS = {"test": 2017}
PARSER = "llava.eval.eval_science_qa.parse_letter: X, X. ..., or one `The answer is X.`; else wrong"

BENCHMARK = Benchmark(
    name="scienceqa",
    title="ScienceQA-IMG, test",
    licence="CC-BY-NC-SA-4.0",
    source="LLaVA's eval.zip, and github.com/lupantech/ScienceQA; arXiv:2209.09513",
    how_to_obtain=f"put {QUESTIONS} of LLaVA's eval.zip (scienceqa), and {PROBLEMS} and images/test of "
    "github.com/lupantech/ScienceQA there",
    kind="utility",
    images=True,
    layout=(
        f"{QUESTIONS} (list of id, image, conversations)",
        f"{PROBLEMS} (id -> choices, answer, subject, ...)",
        f"{PICTURES}/<image>",
    ),
    prompt_rule="the first turn, and a line that asks for the option's letter",
    judge_gets="nothing: the letter is compared with the answer",
)


def check(root: Path, *, expected: Mapping[str, int] | None = None) -> Report:
    """Read questions and problems, count those with a picture, and look for every picture.

    Raises:
        BenchmarkError: a file, a field, a problem or a picture is missing, or the count is another.
    """
    folder = DataFolder(BENCHMARK, root)
    rows = _rows(folder)
    counts = folder.counted({"test": len(rows)}, expected or COUNTS)
    _problems(folder, rows)
    folder.with_pictures(_picture(row) for row in rows)
    return Report(BENCHMARK.name, root, counts, folder.sha256(QUESTIONS, PROBLEMS), (f"parser {PARSER}",))


def samples(
    root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
) -> Iterator[Sample]:
    """The questions with a picture; their scenario is the subject.

    Raises:
        BenchmarkError: a file, a field or a problem is missing.
    """
    folder = DataFolder(BENCHMARK, root)
    name = folder.split(split)
    rows = _rows(folder)
    problems = _problems(folder, rows)
    instruction = "Answer with the option's letter from the given choices directly."
    made = (
        Sample(
            uid=f"{BENCHMARK.name}/{name}/{row['id']}",
            benchmark=BENCHMARK.name,
            scenario=str(problem.get("subject", "")),
            cluster=f"{BENCHMARK.name}/{name}/{row['id']}",
            kind="utility",
            prompt=f"{_question(folder, row)}\n{instruction}",
            judge_question=_question(folder, row),
            image=_picture(row),
            image_sha256=None,
            image_mode="real",
            licence=BENCHMARK.licence,
            meta={
                "scorer": BENCHMARK.name,
                "reference": {"choices": list(problem["choices"]), "answer": int(problem["answer"])},
            },
        )
        for row, problem in zip(rows, problems, strict=True)
    )
    yield from folder.chosen(made, limit, ids)


def item_score(text: str, reference: Mapping[str, Any]) -> float:
    """1 if the answer's letter is the right one."""
    letter = from_llava("eval_science_qa", "parse_letter")(text, LETTERS)
    said = from_llava("eval_science_qa", "get_pred_idx")(letter, reference["choices"], LETTERS)
    return float(said == reference["answer"])


def summary(answered: Sequence[tuple[Sample, str]]) -> dict[str, float]:
    """Accuracy, and the share of answers without a letter, which count as wrong."""
    if not answered:
        return {}
    parse, failed = from_llava("eval_science_qa", "parse_letter"), from_llava("eval_science_qa", "FAILED")
    right = sum(item_score(text, item.meta["reference"]) for item, text in answered)
    unread = sum(parse(text, LETTERS) == failed for _, text in answered)
    return {"accuracy": right / len(answered), "unparseable": unread / len(answered)}


def _rows(folder: DataFolder) -> list[Row]:
    rows = folder.json_rows(QUESTIONS, ("id", "conversations"))
    return [row for row in rows if row.get("image")]


def _problems(folder: DataFolder, rows: Sequence[Row]) -> list[Row]:
    held = folder.json(PROBLEMS)
    absent = next(
        (row["id"] for row in rows if not isinstance(held, dict) or str(row["id"]) not in held), None
    )
    if absent is not None:
        raise folder.wrong(
            f"{PROBLEMS} has no problem {absent}, which {QUESTIONS} asks", "take both files of one release"
        )
    return folder.with_fields(
        PROBLEMS, [held[str(row["id"])] for row in rows], ("choices", "answer"), ("choices", "answer")
    )


def _question(folder: DataFolder, row: Row) -> str:
    """The first turn; LLaVA's file has the picture's placeholder in it."""
    try:
        return str(row["conversations"][0]["value"]).replace("<image>", "").strip()
    except (KeyError, IndexError, TypeError) as error:
        raise folder.wrong(
            f"question {row['id']} of {QUESTIONS} has no first turn in conversations", "fetch that file again"
        ) from error


def _picture(row: Row) -> str:
    return f"{PICTURES}/{row['image']}"
