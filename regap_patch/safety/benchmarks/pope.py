"""POPE: is an object in the picture, yes or no; absent objects are chosen in three ways."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from regap_patch.records import Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark, Report
from regap_patch.safety.benchmarks.data_folder import DataFolder, Row
from regap_patch.safety.benchmarks.scoring import from_llava

FILE = "llava_pope_test.jsonl"
PICTURES = "val2014"
COUNTS = {"adversarial": 3000, "popular": 3000, "random": 2910}
PARSER = "llava.eval.eval_pope.says_yes: yes, unless No, no or not is a word of the first sentence"

BENCHMARK = Benchmark(
    name="pope",
    title="POPE",
    licence="MIT; photographs: COCO's",
    source="LLaVA's eval.zip, and github.com/AoiDragon/POPE; arXiv:2305.10355",
    how_to_obtain=f"put {FILE} of LLaVA's eval.zip (pope), github.com/AoiDragon/POPE's output/coco as coco, "
    f"and the photographs of COCO {PICTURES} there",
    kind="utility",
    images=True,
    scenarios=tuple(COUNTS),
    layout=(
        f"{FILE} (question_id, image, text, category)",
        "coco/coco_pope_{random,popular,adversarial}.json (image, text, label)",
        f"{PICTURES}/<image>",
    ),
    prompt_rule="`text`, which ends with the line that asks for one word or phrase",
    judge_gets="nothing: yes or no is compared with the label",
)


def check(root: Path, *, expected: Mapping[str, int] | None = None) -> Report:
    """Read questions and labels, count them by category, and look for every photograph.

    Raises:
        BenchmarkError: a file, a field, a label or a photograph is missing, or a count is another.
    """
    folder = DataFolder(BENCHMARK, root)
    rows = _rows(folder)
    counts = folder.counted(Counter(row["category"] for row in rows), expected or COUNTS)
    _truths(folder, rows)
    folder.with_pictures(_picture(row) for row in rows)
    files = (FILE, *(_labels(category) for category in counts))
    return Report(BENCHMARK.name, root, counts, folder.sha256(*files), (f"parser {PARSER}",))


def samples(
    root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
) -> Iterator[Sample]:
    """The questions; their scenario is the category, and those about one photograph are one cluster.

    Raises:
        BenchmarkError: a file, a field or a label is missing.
    """
    folder = DataFolder(BENCHMARK, root)
    name = folder.split(split)
    rows = _rows(folder)
    truths = _truths(folder, rows)
    made = (
        Sample(
            uid=f"{BENCHMARK.name}/{name}/{row['category']}/{row['question_id']}",
            benchmark=BENCHMARK.name,
            scenario=row["category"],
            cluster=f"{BENCHMARK.name}/{name}/{row['image']}",
            kind="utility",
            prompt=row["text"].strip(),
            judge_question=row["text"].strip(),
            image=_picture(row),
            image_sha256=None,
            image_mode="real",
            licence=BENCHMARK.licence,
            meta={"scorer": BENCHMARK.name, "reference": {"yes": truth}},
        )
        for row, truth in zip(rows, truths, strict=True)
    )
    yield from folder.chosen(made, limit, ids)


def item_score(text: str, reference: Mapping[str, Any]) -> float:
    """1 if the answer says what the label says."""
    return float(from_llava("eval_pope", "says_yes")(text) == reference["yes"])


def summary(answered: Sequence[tuple[Sample, str]]) -> dict[str, float]:
    """F1, accuracy and share of yes by category, and the mean F1, which papers quote."""
    by_category: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for item, text in answered:
        by_category[item.scenario].append((text, item.meta["reference"]["yes"]))
    numbers = {}
    for category, pairs in sorted(by_category.items()):
        counts = from_llava("eval_pope", "count")(pairs)
        for name in ("f1", "accuracy", "yes_ratio"):
            numbers[f"{category} {name}"] = float(getattr(counts, name))
    means = [numbers[f"{category} f1"] for category in by_category]
    return numbers | ({"mean f1": sum(means) / len(means)} if means else {})


def _rows(folder: DataFolder) -> list[Row]:
    return folder.json_lines(FILE, ("question_id", "image", "text", "category"))


def _truths(folder: DataFolder, rows: Sequence[Row]) -> list[bool]:
    """Whether yes is right, found by photograph and question, not by order."""
    labels: dict[tuple[str, str, str], bool] = {}
    for category in {row["category"] for row in rows}:
        for row in folder.json_lines(_labels(category), ("image", "text", "label")):
            labels[category, row["image"], row["text"].strip()] = row["label"] != "no"
    found = []
    for row in rows:
        key = row["category"], row["image"], row["text"].split("\n")[0].strip()
        if key not in labels:
            raise folder.wrong(
                f"{_labels(row['category'])} has no label of question {row['question_id']} of {FILE}",
                "put the labels there that belong to these questions",
            )
        found.append(labels[key])
    return found


def _labels(category: str) -> str:
    return f"coco/coco_pope_{category}.json"


def _picture(row: Row) -> str:
    return f"{PICTURES}/{row['image']}"
