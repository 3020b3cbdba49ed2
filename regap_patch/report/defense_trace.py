"""What a run's trace says of its defences: on how many answers each fired, and what the stack costs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any


def read_defense_trace(folder: Path) -> dict[str, Any]:
    """Of a run of a defended model.

    Returns:
        `fired`: defence -> image mode -> (answers on which it fired, answers with a trace); `generations`: a
        mean over answers; `latency`: of each kind of question the ratio of time with the stack to time
        without (median, lowest and highest of batches), and how many answers were timed; empty values
        where there is no trace.
    """
    rows: dict[str, Mapping[str, Any]] = {}
    for path in sorted(folder.glob("trace/*/*/steps-*.jsonl")):
        rows |= {str(row["key"]): row for row in _lines(path)}
    fired: dict[str, dict[str, list[int]]] = {}
    for row in rows.values():
        for name, notes in row["defenses"].items():
            counts = fired.setdefault(name, {}).setdefault(row["image_mode"], [0, 0])
            counts[0] += bool(notes["fired"])
            counts[1] += 1
    mean = sum(row["generations"] for row in rows.values()) / len(rows) if rows else None
    return {"fired": fired, "generations": mean, "latency": _latency(folder)}


def defense_sentences(found: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    said = []
    for name, modes in found["fired"].items():
        every = [sum(counts) for counts in zip(*modes.values(), strict=True)]
        apart = ", ".join(f"{mode} {count} of {of}" for mode, (count, of) in sorted(modes.items()))
        inside = f" ({apart})" if len(modes) > 1 else ""
        said.append(f"The defence {name} fired on {every[0]} of {every[1]} answers{inside}.")
    if found["latency"]:
        ratios = ", ".join(
            f"{row['ratio']:.2f} {kind} ({row['low']:.2f} to {row['high']:.2f}, {row['items']} answers)"
            for kind, row in found["latency"].items()
        )
        said.append(
            f"An answer takes this many times the time of the same without defences: {ratios}; "
            f"{found['generations']:.2f} generations an answer."
        )
    return said


def _latency(folder: Path) -> dict[str, dict[str, float]]:
    """Of the batches of all shards: the median ratio, which a pause of the machine does not move."""
    ratios: dict[str, list[float]] = {}
    items: Counter[str] = Counter()
    for path in sorted(folder.glob("trace/latency-*.json")):
        for kind, row in json.loads(path.read_text(encoding="utf-8"))["kinds"].items():
            ratios.setdefault(kind, []).extend(row["ratios"])
            items[kind] += row["items"]
    return {
        kind: {"items": items[kind], "ratio": median(found), "low": min(found), "high": max(found)}
        for kind, found in ratios.items()
    }


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # torn by a kill: its block was asked again
            continue
        yield row
