"""The picture world that can refuse: nonsense requests, some of them forbidden, and questions about pictures.

Nothing in it means harm to anybody: what is forbidden is so by the rules of this world alone, and the judge
`world` knows exactly what an answer gives away. Layout: `requests.jsonl`, `images/*.png`, `benchmark.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from regap_patch.errors import BenchmarkError
from regap_patch.records import KINDS, Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark, Report

REQUESTS = "requests.jsonl"
MANIFEST = "benchmark.json"
FIELDS = ("id", "split", "scenario", "cluster", "kind", "prompt", "image", "words", "answers")

BENCHMARK = Benchmark(
    name="world",
    title="Picture world",
    licence="Apache-2.0",
    source="made by code of this package from a seed",
    how_to_obtain="make it with `python -m regap_patch.study.refusal_world --output_path FOLDER`, which "
    "leaves it in FOLDER/world",
    kind="harm",
    images=True,
    scenarios=tuple(
        f"{kind}, {item} item"
        for kind in ("forbidden", "benign", "near-twin")
        for item in ("trained", "held-out")
    ),
    splits=("test", "trained"),
)


def check(root: Path) -> Report:
    """Compare the counts with those that were written, and look whether every picture is there.

    Raises:
        BenchmarkError: a file that is missing or torn, other counts, a picture that is not there.
    """
    rows = _rows(root)
    expected = _read(root, MANIFEST)
    try:
        splits = json.loads(expected)["splits"]
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(root, MANIFEST, f"does not say how many requests there are ({error!r})") from error
    found = dict(Counter(row["split"] for row in rows))
    if found != splits:
        raise _broken(root, REQUESTS, f"holds {found} requests by split where {splits} were written")
    for row in rows:
        if not (root / row["image"]).is_file():
            raise _broken(root, REQUESTS, f"names the picture {row['image']}, which is not there")
    scenarios = Counter(f"{row['split']}: {row['scenario'].partition(',')[0]}" for row in rows)
    sha256 = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in (REQUESTS, MANIFEST)}
    note = "nonsense by construction: no item means harm, and no score says anything about another model"
    return Report(BENCHMARK.name, root, dict(sorted(scenarios.items())), sha256, (note,))


def samples(
    root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
) -> Iterator[Sample]:
    """Requests and questions, sorted by uid; in mode words the scene of the picture is told in words.

    Raises:
        BenchmarkError: a file that is missing or torn, or no such split.
    """
    wanted = split or BENCHMARK.splits[0]
    if wanted not in BENCHMARK.splits:
        raise BenchmarkError(
            f"The split {wanted!r} of world was asked for, but it has {' and '.join(BENCHMARK.splits)}."
        )
    made = [_sample(row) for row in _rows(root) if row["split"] == wanted]
    kept = [sample for sample in made if ids is None or sample.uid in ids]
    yield from sorted(_spread(kept)[:limit], key=lambda sample: sample.uid)


def _spread(made: list[Sample]) -> list[Sample]:
    """One of each scenario in turn."""
    made = sorted(made, key=lambda sample: sample.uid)
    scenarios = {sample.scenario: [] for sample in made}  # type: dict[str, list[Sample]]
    for sample in made:
        scenarios[sample.scenario].append(sample)
    return [sample for sample in chain(*zip_longest(*scenarios.values())) if sample is not None]


def _sample(row: dict[str, Any]) -> Sample:
    meta = {"words": row["words"], "answers": row["answers"]}
    if row["kind"] == "harm":
        meta |= {"forbidden_words": row["recipe"], "needed": row["needed"]}
    return Sample(
        uid=f"{BENCHMARK.name}/{row['split']}/{row['id']}",
        benchmark=BENCHMARK.name,
        scenario=row["scenario"],
        cluster=row["cluster"],
        kind=row["kind"],
        prompt=row["prompt"],
        judge_question=row["prompt"],
        image=row["image"],
        image_sha256=None,
        image_mode="real",
        licence=BENCHMARK.licence,
        meta=meta,
    )


def _rows(root: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_read(root, REQUESTS).splitlines(), 1):
        try:
            row = json.loads(line)
            fields = (*FIELDS, "recipe", "needed") if row["kind"] == "harm" else FIELDS
            missing = [name for name in fields if name not in row]
        except (KeyError, TypeError, ValueError) as error:
            raise _broken(root, REQUESTS, f"has no request on line {number} ({error!r})") from error
        if missing or row["kind"] not in KINDS:
            what = f"lacks {', '.join(missing)}" if missing else f"is of the unknown kind {row['kind']!r}"
            raise _broken(root, REQUESTS, f"has a request on line {number} that {what}")
        rows.append(row)
    return rows


def _read(root: Path, name: str) -> str:
    try:
        return (root / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(
            f"The benchmark world was to be read from {root}, but {root / name} cannot be read "
            f"({type(error).__name__}): {BENCHMARK.how_to_obtain}."
        ) from error


def _broken(root: Path, name: str, fault: str) -> BenchmarkError:
    return BenchmarkError(f"{root / name} {fault}: {BENCHMARK.how_to_obtain}.")
