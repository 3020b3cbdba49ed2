"""Items of your own: `items.jsonl`, an object a line, and pictures beside it.

```
{"id": "7", "prompt": "How do I ...?", "image": "images/7.png", "kind": "harm", "scenario": "tools"}
```
`id` and `prompt` are needed. `judge_question` (the prompt), `image`, `kind` (harm), `scenario`, `cluster`,
`split` (test), `licence` and `meta` are not; null is as good as nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from regap_patch.errors import BenchmarkError
from regap_patch.records import KINDS, Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark, Report
from regap_patch.safety.benchmarks.data_folder import DataFolder

ITEMS = "items.jsonl"
FIELDS = (
    "id",
    "prompt",
    "judge_question",
    "image",
    "kind",
    "scenario",
    "cluster",
    "split",
    "licence",
    "meta",
)
TYPES: dict[str, type] = {"prompt": str, "judge_question": str, "image": str, "split": str, "meta": dict}
PLACEHOLDER = "<image>"

BENCHMARK = Benchmark(
    name="custom",
    title="Own items",
    licence="yours",
    source="a JSON lines file of your own",
    how_to_obtain=f"write {ITEMS}, one object a line with id and prompt",
    kind="harm",
    images=True,
)


def check(root: Path) -> Report:
    """Read every line, and look whether its picture is there.

    Raises:
        BenchmarkError: no file, a line that is no item, an id twice, a picture that is not there.
    """
    rows = _rows(root)
    for row in rows:
        if row.get("image") and not (root / row["image"]).is_file():
            raise BenchmarkError(
                f"Item {row['id']!r} of {root / ITEMS} names the picture {row['image']}, but {root} has no "
                f"such file: put it there, or take the item out."
            )
    counts = Counter(row.get("split", "test") for row in rows)
    sha256 = {ITEMS: hashlib.sha256((root / ITEMS).read_bytes()).hexdigest()}
    return Report(BENCHMARK.name, root, dict(sorted(counts.items())), sha256)


def samples(
    root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
) -> Iterator[Sample]:
    """The items as samples, sorted by uid.

    Raises:
        BenchmarkError: no file, a line that is no item, an id twice, or no item of that split.
    """
    wanted = split or "test"
    rows = [row for row in _rows(root) if row.get("split", "test") == wanted]
    if not rows:
        raise BenchmarkError(f"{root / ITEMS} has no item of the split {wanted!r}: name one that it has.")
    made = (_sample(row, wanted) for row in rows)
    yield from DataFolder(BENCHMARK, root).chosen(made, limit, ids)


def _sample(row: Mapping[str, Any], split: str) -> Sample:
    prompt = str(row["prompt"]).replace(PLACEHOLDER, "").strip()  # LLaVA's data has it in the text
    identity = str(row["id"])
    return Sample(
        uid=f"{BENCHMARK.name}/{split}/{identity}",
        benchmark=BENCHMARK.name,
        scenario=str(row.get("scenario", "")),
        cluster=str(row.get("cluster", identity)),
        kind=row.get("kind", "harm"),
        prompt=prompt,
        judge_question=str(row.get("judge_question", prompt)),
        image=row.get("image") or None,
        image_sha256=None,
        image_mode="real" if row.get("image") else "none",
        licence=str(row.get("licence", BENCHMARK.licence)),
        meta=dict(row.get("meta", {})),
    )


def _rows(root: Path) -> list[dict[str, Any]]:
    path = root / ITEMS
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # texts may hold what else ends a line
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(
            f"The benchmark custom was to be read from {root}, but {path} cannot be opened as UTF-8 "
            f"({type(error).__name__}): {BENCHMARK.how_to_obtain}."
        ) from error
    rows = [_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    twice = [identity for identity, count in Counter(str(row["id"]) for row in rows).items() if count > 1]
    if twice:
        raise BenchmarkError(f"{path} has the id {twice[0]!r} more than once: give every item its own.")
    return rows


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair fits in no file
    except ValueError as error:
        raise BenchmarkError(
            f"Line {number} of {path} is no JSON ({error}): mend it, or take it out."
        ) from error
    if isinstance(row, dict):
        row = {name: value for name, value in row.items() if value is not None}
    missing = [name for name in ("id", "prompt") if not isinstance(row, dict) or row.get(name, "") == ""]
    if missing:
        raise BenchmarkError(
            f"Line {number} of {path} has no {' and no '.join(missing)}: every item needs both."
        )
    unknown = sorted(set(row) - set(FIELDS))
    if unknown or row.get("kind", "harm") not in KINDS:
        wrong = f"the field {unknown[0]!r}" if unknown else f"the kind {row['kind']!r}"
        raise BenchmarkError(
            f"Line {number} of {path} has {wrong}, but an item has {', '.join(FIELDS)}, and a kind is one of "
            f"{', '.join(KINDS)}: rename it, or put it into meta."
        )
    for name, kind in TYPES.items():
        if not isinstance(row.get(name, kind()), kind):
            raise BenchmarkError(
                f"Line {number} of {path} has {type(row[name]).__name__} as {name}, where {kind.__name__} is "
                f"expected: mend it, or take it out."
            )
    return dict(row)
