"""What is left to do of a study, how long it takes and how much room it needs; none of it is done."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .store import RECORD, Node, is_done, read_record

# Seconds of a start (imports, loading) and of a step, by kind, for a store that holds none of that kind yet.
# Seen with LLMs of width 128 and 2 layers, two at a time on the 2 cores of a virtual x86 server.
START, STEP = 10.0, 0.25
SECONDS: dict[str, tuple[float, float]] = {
    "text": (2.0, 0.0),
    "tokens": (2.0, 0.0),
    "base": (START, 0.27),
    "benchmark": (1.0, 0.0),
    "benchmark-stray": (1.0, 0.0),
    "conversations": (1.0, 0.0),
    "aligned": (START, 0.1),
    "pictures": (7.0, 0.0),
    "tower": (5.0, 0.04),
    "stage1": (START, 0.25),
    "surgery": (START, 0.0),
    "stage2": (START, 0.2),
    "measures": (18.0, 0.0),
    "anchors": (1.0, 0.0),
    "fit": (7.0, 0.0),
    "defended": (25.0, 0.0),
}


@dataclass(frozen=True, slots=True)
class KindPlan:
    """The pieces of one kind.

    Attributes:
        kind: of `Node`.
        pieces: how many the study has, counted by folder.
        done: how many of them are there.
        seconds: that those left take, one after another.
        size: bytes that they need; None if none of the kind is there to tell.
        recorded: how many finished pieces of the store the estimate comes from; 0: from the table `SECONDS`.
    """

    kind: str
    pieces: int
    done: int
    seconds: float
    size: float | None
    recorded: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is left of a study.

    Attributes:
        kinds: in the order in which they are first needed.
        seconds: until the end: all work over the jobs, or the longest chain, if that takes longer.
        size: bytes that the kinds need of which one is there.
    """

    kinds: tuple[KindPlan, ...]
    seconds: float
    size: float


def plan_study(nodes: Sequence[Node], store: Path, jobs: int) -> Plan:
    """Count and estimate.

    Args:
        nodes: chosen pieces, each after those that it needs.
        store: whose finished pieces tell how long others of their kind take.
        jobs: pieces at a time.
    """
    pieces = {node.key: node for node in nodes}
    records = _records(store)
    left = {key: _seconds(node, records) for key, node in pieces.items() if not is_done(node)}
    ends: dict[str, float] = {}
    for key, node in pieces.items():
        begins = max((ends.get(need, 0.0) for need in node.made_from["needs"]), default=0.0)
        ends[key] = begins + left.get(key, 0.0)
    kinds = tuple(
        _kind(kind, [node for node in pieces.values() if node.kind == kind], left, records.get(kind, []))
        for kind in dict.fromkeys(node.kind for node in pieces.values())
    )
    longest = max(ends.values(), default=0.0)
    return Plan(kinds, max(sum(left.values()) / jobs, longest), sum(kind.size or 0.0 for kind in kinds))


def _records(store: Path) -> dict[str, list[dict[str, Any]]]:
    """Records of every finished piece in a store, by kind."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(store.glob(f"*/{RECORD}")):
        record = read_record(path.parent)
        found.setdefault(record["kind"], []).append(record)
    return found


def _seconds(node: Node, records: dict[str, list[dict[str, Any]]]) -> float:
    """By pieces of its kind: the median of those with as many steps, else of all, by the step."""
    known = records.get(node.kind, [])
    if alike := [record["seconds"] for record in known if record.get("steps") == node.steps]:
        return float(statistics.median(alike))
    if rates := [record["seconds"] / record["steps"] for record in known if record.get("steps")]:
        return float(statistics.median(rates)) * node.steps
    start, step = SECONDS.get(node.kind, (START, STEP))
    return start + step * node.steps


def _kind(
    kind: str, pieces: Sequence[Node], left: dict[str, float], records: list[dict[str, Any]]
) -> KindPlan:
    missing = [left[node.key] for node in pieces if node.key in left]
    sizes = [sum(record.get("files", {}).values()) for record in records]
    size = statistics.median(sizes) * len(missing) if sizes else None
    return KindPlan(kind, len(pieces), len(pieces) - len(missing), sum(missing), size, len(records))
