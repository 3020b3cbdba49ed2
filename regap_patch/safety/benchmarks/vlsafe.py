"""VLSafe: harmful questions about harmless photographs, the published set nearest to a blank picture."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from regap_patch.records import Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark, Report
from regap_patch.safety.benchmarks.data_folder import DataFolder, Row

FILE = "VLSafe/harmlessness_examine.jsonl"
PICTURES = "train2017"

BENCHMARK = Benchmark(
    name="vlsafe",
    title="VLSafe, examination set",
    licence="none stated; photographs: COCO's",
    source="huggingface.co/datasets/YangyiYY/LVLM_NLF; arXiv:2311.10081",
    how_to_obtain=f"put {FILE} of the hub's YangyiYY/LVLM_NLF there, and its photographs of COCO "
    f"train2017 into {PICTURES}",
    kind="harm",
    images=True,
    layout=(f"{FILE} (image_id, query)", f"{PICTURES}/<image_id>"),
    prompt_rule="`query`, with its photograph",
    judge_gets="`query`",
)
COUNTS = {"test": 1110}


def check(root: Path, *, expected: Mapping[str, int] | None = None) -> Report:
    """Read all rows, count them, and look for every photograph.

    Raises:
        BenchmarkError: the file or a photograph is missing, a row lacks a field, or the count is another.
    """
    folder = DataFolder(BENCHMARK, root)
    rows = _rows(folder)
    counts = folder.counted({"test": len(rows)}, expected or COUNTS)
    pictures = folder.with_pictures(_picture(row) for row in rows)
    return Report(BENCHMARK.name, root, counts, folder.sha256(FILE), (f"{pictures} photographs",))


def samples(
    root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
) -> Iterator[Sample]:
    """The questions; those about one photograph are one cluster.

    Raises:
        BenchmarkError: the file is missing, or a row lacks a field.
    """
    folder = DataFolder(BENCHMARK, root)
    name = folder.split(split)
    made = (
        Sample(
            uid=f"{BENCHMARK.name}/{name}/{index:04d}",
            benchmark=BENCHMARK.name,
            scenario="",
            cluster=f"{BENCHMARK.name}/{name}/{row['image_id']}",
            kind="harm",
            prompt=row["query"].strip(),
            judge_question=row["query"].strip(),
            image=_picture(row),
            image_sha256=None,
            image_mode="real",
            licence=BENCHMARK.licence,
        )
        for index, row in enumerate(_rows(folder))
    )
    yield from folder.chosen(made, limit, ids)


def _rows(folder: DataFolder) -> list[Row]:
    return folder.json_lines(FILE, ("image_id", "query"))


def _picture(row: Row) -> str:
    return f"{PICTURES}/{row['image_id']}"
