"""TextVQA, validation set: questions about text in pictures, with or without the text as OCR tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from regap_patch.records import Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark, Report
from regap_patch.safety.benchmarks.data_folder import DataFolder, Row
from regap_patch.safety.benchmarks.scoring import from_llava

QUESTIONS, ANSWERS = "llava_textvqa_val_v051_ocr.jsonl", "TextVQA_0.5.1_val.json"
PICTURES = "train_images"
OCR = "Reference OCR token:"
COUNTS = {"val": 5000}
PARSER = "llava.eval.m4c_evaluator.TextVQAAccuracyEvaluator: soft accuracy over ten people's answers"

BENCHMARK = Benchmark(
    name="textvqa",
    title="TextVQA, validation",
    licence="CC-BY-4.0",
    source="LLaVA's eval.zip, and textvqa.org; arXiv:1904.08920",
    how_to_obtain=f"put {QUESTIONS} of LLaVA's eval.zip (textvqa), and {ANSWERS} and the pictures of "
    f"textvqa.org (as {PICTURES}) there",
    kind="utility",
    images=True,
    splits=("val", "val_without_ocr"),
    layout=(
        f"{QUESTIONS} (question_id, image, text)",
        f"{ANSWERS} (data: list of image_id, question, answers)",
        f"{PICTURES}/<image>",
    ),
    prompt_rule="`text`, which has a line of OCR tokens and one that asks for one word or phrase; split "
    "val_without_ocr leaves the tokens out",
    judge_gets="nothing: the answer is compared with those of ten people",
)


def check(root: Path, *, expected: Mapping[str, int] | None = None) -> Report:
    """Read questions and answers, count them, and look for every picture.

    Raises:
        BenchmarkError: a file, a field, an answer or a picture is missing, or the count is another.
    """
    folder = DataFolder(BENCHMARK, root)
    rows = _rows(folder)
    counts = folder.counted({"val": len(rows)}, expected or COUNTS)
    _answers(folder, rows)
    folder.with_pictures(_picture(row) for row in rows)
    notes = (
        f"parser {PARSER}",
        "split val gives OCR tokens, as LLaVA-1.5's numbers have them; val_without_ocr does not, and the two "
        "do not compare",
    )
    return Report(BENCHMARK.name, root, counts, folder.sha256(QUESTIONS, ANSWERS), notes)


def samples(
    root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
) -> Iterator[Sample]:
    """The questions; those about one picture are one cluster.

    Raises:
        BenchmarkError: a file, a field or an answer is missing.
    """
    folder = DataFolder(BENCHMARK, root)
    name = folder.split(split)
    rows = _rows(folder)
    answers = _answers(folder, rows)
    made = (
        Sample(
            uid=f"{BENCHMARK.name}/{name}/{index:04d}",
            benchmark=BENCHMARK.name,
            scenario="",
            cluster=f"{BENCHMARK.name}/{name}/{row['question_id']}",
            kind="utility",
            prompt=_without_ocr(row["text"]) if name == "val_without_ocr" else row["text"].strip(),
            judge_question=_question(row["text"]),
            image=_picture(row),
            image_sha256=None,
            image_mode="real",
            licence=BENCHMARK.licence,
            meta={"scorer": BENCHMARK.name, "reference": {"answers": people}},
        )
        for index, (row, people) in enumerate(zip(rows, answers, strict=True))
    )
    yield from folder.chosen(made, limit, ids)


def item_score(text: str, reference: Mapping[str, Any]) -> float:
    """How far the people who were asked agree with the answer."""
    evaluator = from_llava("m4c_evaluator", "TextVQAAccuracyEvaluator")()
    return float(evaluator.score({"pred_answer": text, "gt_answers": reference["answers"]}))


def summary(answered: Sequence[tuple[Sample, str]]) -> dict[str, float]:
    """Soft accuracy."""
    if not answered:
        return {}
    pairs = [
        {"pred_answer": text, "gt_answers": item.meta["reference"]["answers"]} for item, text in answered
    ]
    evaluator = from_llava("m4c_evaluator", "TextVQAAccuracyEvaluator")()
    return {"accuracy": float(evaluator.eval_pred_list(pairs))}


def _rows(folder: DataFolder) -> list[Row]:
    return folder.json_lines(QUESTIONS, ("question_id", "image", "text"))


def _answers(folder: DataFolder, rows: Sequence[Row]) -> list[list[str]]:
    """Of each question, found by picture and question."""
    held = folder.json(ANSWERS)
    entries = held.get("data") if isinstance(held, dict) else None
    if not isinstance(entries, list):
        raise folder.wrong(f"{ANSWERS} has no list data", "fetch that file again")
    folder.with_fields(f"{ANSWERS}, data", entries, ("image_id", "question", "answers"))
    known = {(entry["image_id"], entry["question"].lower()): list(entry["answers"]) for entry in entries}
    found = []
    for number, row in enumerate(rows, 1):
        key = row["question_id"], _question(row["text"]).lower()
        if key not in known:
            raise folder.wrong(
                f"{ANSWERS} has no answers to row {number} of {QUESTIONS}", "take the files of one release"
            )
        found.append(known[key])
    return found


def _question(text: str) -> str:
    """The first line that is no OCR tokens."""
    return next((line for line in text.split("\n") if not line.startswith(OCR)), "")


def _without_ocr(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not line.startswith(OCR)).strip()


def _picture(row: Row) -> str:
    return f"{PICTURES}/{row['image']}"
