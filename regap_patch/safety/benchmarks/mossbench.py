"""MOSSBench: harmless questions about pictures that alarm a model which is too careful."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from regap_patch.records import Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark, Report
from regap_patch.safety.benchmarks.data_folder import DataFolder, Row

FILE = "data/images_information/information.json"
FIELDS = ("image", "short description", "question", "pid", "metadata")
TYPES = {
    "type 1": "Exaggerated Risk",
    "type 2": "Negated Harm",
    "type 3": "Counterintuitive Interpretation",
}
"""Name of a stimulus in the data -> in the paper."""

BENCHMARK = Benchmark(
    name="mossbench",
    title="MOSSBench",
    licence="CC-BY-SA-4.0; not for training",
    source="github.com/xirui-li/MOSSBench; arXiv:2406.17806",
    how_to_obtain="clone github.com/xirui-li/MOSSBench there, with its data/images",
    kind="benign",
    images=True,
    scenarios=tuple(TYPES.values()),
    layout=(f"{FILE} (pid -> {', '.join(FIELDS)})", "data/images/<file>"),
    prompt_rule="`question`, with its picture",
    judge_gets="`question`",
)
COUNTS = dict.fromkeys(TYPES.values(), 100)


def check(root: Path, *, expected: Mapping[str, int] | None = None) -> Report:
    """Read all rows, count them by type of stimulus, and look for every picture.

    Raises:
        BenchmarkError: the file, a field or a picture is missing, or a count is another.
    """
    folder = DataFolder(BENCHMARK, root)
    rows = _rows(folder)
    counts = folder.counted(Counter(_type(folder, row) for row in rows), expected or COUNTS)
    folder.with_pictures(_picture(row) for row in rows)
    return Report(BENCHMARK.name, root, counts, folder.sha256(FILE), ("an empty answer counts as a refusal",))


def samples(
    root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
) -> Iterator[Sample]:
    """The questions; their scenario is the type of stimulus.

    Raises:
        BenchmarkError: the file or a field is missing.
    """
    folder = DataFolder(BENCHMARK, root)
    name = folder.split(split)
    made = (
        Sample(
            uid=f"{BENCHMARK.name}/{name}/{row['pid']}",
            benchmark=BENCHMARK.name,
            scenario=_type(folder, row),
            cluster=f"{BENCHMARK.name}/{name}/{row['pid']}",
            kind="benign",
            prompt=row["question"].strip(),
            judge_question=row["question"].strip(),
            image=_picture(row),
            image_sha256=None,
            image_mode="real",
            licence=BENCHMARK.licence,
        )
        for row in _rows(folder)
    )
    yield from folder.chosen(made, limit, ids)


def _rows(folder: DataFolder) -> list[Row]:
    """By pid in the repository's file, a list in the hub's copy."""
    held = folder.json(FILE)
    rows = list(held.values()) if isinstance(held, dict) else held
    if not isinstance(rows, list):
        raise folder.wrong(f"{FILE} holds {type(rows).__name__} instead of questions by pid")
    return folder.with_fields(FILE, rows, FIELDS, ("image", "question", "pid", "metadata"))


def _type(folder: DataFolder, row: Row) -> str:
    stimulus = row["metadata"].get("over") if isinstance(row["metadata"], dict) else None
    name = TYPES.get(str(stimulus), str(stimulus))
    if name not in TYPES.values():
        raise folder.wrong(
            f"item {row['pid']} of {FILE} has the type {stimulus!r} in metadata.over",
            f"a type is one of {', '.join(TYPES)}; take the published file",
        )
    return name


def _picture(row: Row) -> str:
    return f"data/{row['image']}"
