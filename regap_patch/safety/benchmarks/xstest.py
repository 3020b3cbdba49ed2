"""XSTest: safe prompts that look unsafe, and unsafe ones beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from regap_patch.records import Kind, Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark, Report
from regap_patch.safety.benchmarks.data_folder import DataFolder, Row

FILE = "xstest_prompts.csv"
COLUMNS = ("id", "prompt", "type", "label", "focus", "note")
KINDS: dict[str, Kind] = {"safe": "benign", "unsafe": "harm"}
COUNTS = {"safe": 250, "unsafe": 200}

BENCHMARK = Benchmark(
    name="xstest",
    title="XSTest",
    licence="CC-BY-4.0",
    source="github.com/paul-rottger/exaggerated-safety; arXiv:2308.01263",
    how_to_obtain=f"put {FILE} of github.com/paul-rottger/exaggerated-safety there",
    kind="benign",
    images=False,
    splits=("all", *KINDS),
    layout=(f"{FILE} ({','.join(COLUMNS)})",),
    prompt_rule="`prompt`, with whatever picture the image mode gives",
    judge_gets="`prompt`",
)


def check(root: Path, *, expected: Mapping[str, int] | None = None) -> Report:
    """Read all rows and count them by label.

    Raises:
        BenchmarkError: the file is missing, lacks a column, or has another number of rows.
    """
    folder = DataFolder(BENCHMARK, root)
    counts = folder.counted(Counter(row["label"] for row in _rows(folder)), expected or COUNTS)
    return Report(BENCHMARK.name, root, counts, folder.sha256(FILE))


def samples(
    root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
) -> Iterator[Sample]:
    """The prompts; the safe ones measure over-refusal. Scenario: the type.

    Raises:
        BenchmarkError: the file is missing or lacks a column.
    """
    folder = DataFolder(BENCHMARK, root)
    name = folder.split(split)
    made = (
        Sample(
            uid=f"{BENCHMARK.name}/{row['label']}/{row['id']}",
            benchmark=BENCHMARK.name,
            scenario=row["type"],
            cluster=f"{BENCHMARK.name}/{row['label']}/{row['id']}",
            kind=KINDS[row["label"]],
            prompt=row["prompt"].strip(),
            judge_question=row["prompt"].strip(),
            image=None,
            image_sha256=None,
            image_mode="none",
            licence=BENCHMARK.licence,
        )
        for row in _rows(folder)
        if name in ("all", row["label"])
    )
    yield from folder.chosen(made, limit, ids)


def _rows(folder: DataFolder) -> list[Row]:
    rows = folder.table(FILE, COLUMNS, ("id", "prompt", "type", "label"))
    odd = next((row for row in rows if row["label"] not in KINDS), None)
    if odd is not None:
        raise folder.wrong(
            f"row {odd['id']} of {FILE} has the label {odd['label']!r}",
            f"a label is one of {', '.join(KINDS)}; fetch that file again",
        )
    return rows
