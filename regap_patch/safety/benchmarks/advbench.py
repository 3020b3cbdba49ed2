"""AdvBench: harmful instructions without pictures, asked with a neutral picture or none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from regap_patch.records import Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark, Report
from regap_patch.safety.benchmarks.data_folder import DataFolder
from regap_patch.safety.benchmarks.near_duplicates import groups

BENCHMARK = Benchmark(
    name="advbench",
    title="AdvBench, harmful behaviours",
    licence="MIT",
    source="github.com/llm-attacks/llm-attacks, data/advbench; arXiv:2307.15043",
    how_to_obtain="put harmful_behaviors.csv of github.com/llm-attacks/llm-attacks (data/advbench) there",
    kind="harm",
    images=False,
    layout=("harmful_behaviors.csv (goal,target)",),
    prompt_rule="`goal`, with whatever picture the image mode gives",
    judge_gets="`goal`",
)
COUNTS = {"test": 520}
FILE = "harmful_behaviors.csv"


def check(root: Path, *, expected: Mapping[str, int] | None = None) -> Report:
    """Read all rows and count them, and their groups of near-duplicates.

    Raises:
        BenchmarkError: the file is missing, lacks a column, or has another number of rows.
    """
    folder = DataFolder(BENCHMARK, root)
    goals = _goals(folder)
    counts = folder.counted({"test": len(goals)}, expected or COUNTS)
    note = f"{len(set(groups(goals)))} groups of near-duplicates, which intervals resample together"
    return Report(BENCHMARK.name, root, counts, folder.sha256(FILE), (note,))


def samples(
    root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
) -> Iterator[Sample]:
    """The goals; those that say nearly the same are one cluster.

    Raises:
        BenchmarkError: the file is missing or lacks a column.
    """
    folder = DataFolder(BENCHMARK, root)
    name = folder.split(split)
    goals = _goals(folder)
    made = (
        Sample(
            uid=f"{BENCHMARK.name}/{name}/{index:04d}",
            benchmark=BENCHMARK.name,
            scenario="",
            cluster=f"{BENCHMARK.name}/{name}/{group:04d}",
            kind="harm",
            prompt=goal,
            judge_question=goal,
            image=None,
            image_sha256=None,
            image_mode="none",
            licence=BENCHMARK.licence,
        )
        for index, (goal, group) in enumerate(zip(goals, groups(goals), strict=True))
    )
    yield from folder.chosen(made, limit, ids)


def _goals(folder: DataFolder) -> list[str]:
    return [row["goal"].strip() for row in folder.table(FILE, ("goal", "target"), ("goal",))]
