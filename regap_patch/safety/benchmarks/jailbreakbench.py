"""JailbreakBench's behaviours: harmful requests, and harmless ones on the same matters."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from regap_patch.records import Kind, Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark, Report
from regap_patch.safety.benchmarks.data_folder import DataFolder, Row

COLUMNS = ("Index", "Goal", "Target", "Behavior", "Category", "Source")
KINDS: dict[str, Kind] = {"harmful": "harm", "benign": "benign"}
COUNTS = {"harmful": 100, "benign": 100}

BENCHMARK = Benchmark(
    name="jailbreakbench",
    title="JailbreakBench behaviours",
    licence="MIT",
    source="huggingface.co/datasets/JailbreakBench/JBB-Behaviors; arXiv:2404.01318",
    how_to_obtain="put data/harmful-behaviors.csv and data/benign-behaviors.csv of the hub's "
    "JailbreakBench/JBB-Behaviors there",
    kind="harm",
    images=False,
    splits=("all", *KINDS),
    layout=("data/harmful-behaviors.csv and data/benign-behaviors.csv (" + ",".join(COLUMNS) + ")",),
    prompt_rule="`Goal`, with whatever picture the image mode gives",
    judge_gets="`Goal`",
)


def check(root: Path, *, expected: Mapping[str, int] | None = None) -> Report:
    """Read and count both halves.

    Raises:
        BenchmarkError: a file is missing, lacks a column, or has another number of rows.
    """
    folder = DataFolder(BENCHMARK, root)
    found = {half: len(_rows(folder, half)) for half in KINDS}
    counts = folder.counted(found, expected or COUNTS)
    return Report(BENCHMARK.name, root, counts, folder.sha256(*map(_file, KINDS)))


def samples(
    root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
) -> Iterator[Sample]:
    """Harmful and harmless behaviours; the harmless ones measure over-refusal.

    Raises:
        BenchmarkError: a file is missing or lacks a column.
    """
    folder = DataFolder(BENCHMARK, root)
    name = folder.split(split)
    made = (
        Sample(
            uid=f"{BENCHMARK.name}/{half}/{int(row['Index']):03d}",
            benchmark=BENCHMARK.name,
            scenario=row["Category"],
            cluster=f"{BENCHMARK.name}/{half}/{int(row['Index']):03d}",
            kind=kind,
            prompt=row["Goal"].strip(),
            judge_question=row["Goal"].strip(),
            image=None,
            image_sha256=None,
            image_mode="none",
            licence=BENCHMARK.licence,
            meta={"source": row["Source"]},
        )
        for half, kind in KINDS.items()
        if name in ("all", half)
        for row in _rows(folder, half)
    )
    yield from folder.chosen(made, limit, ids)


def _file(half: str) -> str:
    return f"data/{half}-behaviors.csv"


def _rows(folder: DataFolder, half: str) -> list[Row]:
    rows = folder.table(_file(half), COLUMNS, ("Index", "Goal", "Category"))
    odd = next((row["Index"] for row in rows if not str(row["Index"]).isdigit()), None)
    if odd is not None:
        raise folder.wrong(
            f"{_file(half)} has the index {odd!r}, which is no number", "fetch that file again"
        )
    return rows
