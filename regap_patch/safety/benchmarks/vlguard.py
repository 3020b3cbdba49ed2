"""VLGuard's test set: unsafe pictures, and safe ones with a safe and an unsafe instruction each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from regap_patch.records import Kind, Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark, Report
from regap_patch.safety.benchmarks.data_folder import DataFolder, Row

FILE = "test.json"
PICTURES = "test"
TURNS = "instr-resp"
FIELDS = ("id", "image", "safe", TURNS)

SUBSETS: dict[str, tuple[bool, str, Kind]] = {
    "unsafes": (False, "instruction", "harm"),
    "safe_unsafes": (True, "unsafe_instruction", "harm"),
    "safe_safes": (True, "safe_instruction", "benign"),
}
"""Name -> (is the picture safe, key of the instruction, kind)."""

BENCHMARK = Benchmark(
    name="vlguard",
    title="VLGuard, test set",
    licence="gated: the terms on the hub",
    source="huggingface.co/datasets/ys-zong/VLGuard; arXiv:2402.02207",
    how_to_obtain=f"ask for access to the hub's ys-zong/VLGuard, then put {FILE} and the unpacked "
    "test.zip there",
    kind="harm",
    images=True,
    splits=("all", *SUBSETS),
    layout=(f"{FILE} ({', '.join(FIELDS)}, ...)", f"{PICTURES}/<image>"),
    prompt_rule="the instruction, with its picture",
    judge_gets="the instruction",
)
COUNTS = {"safe pictures": 558, "unsafe pictures": 442}


def check(root: Path, *, expected: Mapping[str, int] | None = None) -> Report:
    """Read all rows, count safe and unsafe pictures, and look for every one.

    Raises:
        BenchmarkError: the file, a field, an instruction or a picture is missing, or a count is another.
    """
    folder = DataFolder(BENCHMARK, root)
    rows = _rows(folder)
    safe = sum(bool(row["safe"]) for row in rows)
    found = {"safe pictures": safe, "unsafe pictures": len(rows) - safe}
    counts = folder.counted(found, expected or COUNTS)
    folder.with_pictures(_picture(row) for row in rows)
    items = [f"{name} {sum(1 for _ in _items(folder, rows, name))}" for name in SUBSETS]
    note = f"items: {', '.join(items)}; published numbers allow 256 new tokens"
    return Report(BENCHMARK.name, root, counts, folder.sha256(FILE), (note,))


def samples(
    root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
) -> Iterator[Sample]:
    """Items of the three subsets, which are the scenarios; those about one picture are one cluster.

    Raises:
        BenchmarkError: the file, a field or an instruction is missing.
    """
    folder = DataFolder(BENCHMARK, root)
    name = folder.split(split)
    rows = _rows(folder)
    subsets = SUBSETS if name == "all" else (name,)
    made = (item for subset in subsets for item in _items(folder, rows, subset))
    yield from folder.chosen(made, limit, ids)


def _items(folder: DataFolder, rows: list[Row], subset: str) -> Iterator[Sample]:
    of_safe, key, kind = SUBSETS[subset]
    for row in rows:
        if bool(row["safe"]) != of_safe:
            continue
        prompt = next((turn[key].strip() for turn in row[TURNS] if turn.get(key)), None)
        if prompt is None:
            raise folder.wrong(
                f"item {row['id']} of {FILE} has no {key} in {TURNS}", "take the published file"
            )
        yield Sample(
            uid=f"{BENCHMARK.name}/{subset}/{row['image']}",
            benchmark=BENCHMARK.name,
            scenario=subset,
            cluster=f"{BENCHMARK.name}/{row['image']}",
            kind=kind,
            prompt=prompt,
            judge_question=prompt,
            image=_picture(row),
            image_sha256=None,
            image_mode="real",
            licence=BENCHMARK.licence,
            meta={
                "category": row.get("harmful_category") or "",
                "subcategory": row.get("harmful_subcategory") or "",
            },
        )


def _rows(folder: DataFolder) -> list[Row]:
    rows = folder.json_rows(FILE, FIELDS)
    for row in rows:
        turns = row[TURNS]
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise folder.wrong(
                f"item {row['id']} of {FILE} has no list of turns in {TURNS}", "take the published file"
            )
    return rows


def _picture(row: Row) -> str:
    return f"{PICTURES}/{row['image']}"
