"""Before a run: what it will cost, and how small a difference it can show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regap_patch.errors import ReportError
from regap_patch.report.formats import NONE, interval, percent
from regap_patch.report.json_files import read_json
from regap_patch.report.metrics import METRICS
from regap_patch.report.power import DISCORDANT_SHARES, LEVEL, POWER, smallest_difference
from regap_patch.report.proportions import wilson, zero_event_upper

TYPICAL = 0.15  # discordant share of the sentence at the end, where no earlier run tells it


@dataclass(frozen=True, slots=True)
class Cost:
    """What an earlier run took for an item, on its machine.

    Attributes:
        seconds: for an answer.
        tokens: of an answer.
        items: that were timed.
    """

    seconds: float
    tokens: float
    items: int


@dataclass(frozen=True, slots=True)
class Planned:
    """One benchmark.

    Attributes:
        benchmark: its name.
        items: in the largest image mode; the pairs of every comparison.
        modes: image modes.
        answers: items summed over modes.
        most_tokens: if every answer is as long as it may be.
        seconds: expected for all answers on one device; None without an earlier run.
        interval: 95 % interval that a rate of one half will have.
        zero_upper: rate that no event at all leaves possible.
        smallest: by discordant share, the smallest difference of two paired arms that is found with 80 %
            power; None where no possible difference is.
        measured: discordant share of an earlier run, the largest of its contrasts; None without.
        smallest_at_measured: the smallest difference at that share.
    """

    benchmark: str
    items: int
    modes: tuple[str, ...]
    answers: int
    most_tokens: int
    seconds: float | None
    interval: tuple[float, float]
    zero_upper: float
    smallest: dict[str, float | None]
    measured: float | None
    smallest_at_measured: float | None


def plan_run(
    items: Mapping[str, Mapping[str, int]],
    *,
    max_new_tokens: int,
    judges: int = 1,
    num_shards: int = 1,
    previous: str | Path | None = None,
    power: float = POWER,
    level: float = LEVEL,
) -> dict[str, Any]:
    """The plan as plain JSON values; `plan_lines` says it in words.

    Args:
        items: number of items by benchmark and image mode, as the manifest of a run has them.
        max_new_tokens: of an answer.
        judges: how many will judge every answer.
        num_shards: devices that share the work.
        previous: folder of an earlier run on the same machine: its trace tells seconds, its `metrics.json`
            how many items differ between arms.
        power: probability of finding the difference.
        level: 1 minus the size of the two-sided test.

    Raises:
        ReportError: no item, or an earlier run without a trace.
    """
    asked = {name: {mode: n for mode, n in modes.items() if n} for name, modes in items.items()}
    if not any(asked.values()):
        raise ReportError("A plan for no item was asked for: name at least one benchmark that has some.")
    costs = {} if previous is None else costs_of(previous)
    shares = {} if previous is None else _discordant_shares(Path(previous))
    rows = [
        _planned(name, modes, max_new_tokens, costs, shares.get(name), power, level)
        for name, modes in asked.items()
        if modes
    ]
    seconds = [row.seconds for row in rows]
    answers = sum(row.answers for row in rows)
    return {
        "benchmarks": [asdict(row) for row in rows],
        "answers": answers,
        "judgements": answers * judges,
        "most_tokens": sum(row.most_tokens for row in rows),
        "seconds": None if None in seconds else sum(filter(None, seconds)) / num_shards,
        "num_shards": num_shards,
        "power": power,
        "level": level,
    }


def costs_of(folder: str | Path) -> dict[str, Cost]:
    """By benchmark, and of all together under "", what a run's trace tells.

    Raises:
        ReportError: it has no trace.
    """
    sums: dict[str, list[float]] = {}
    for benchmark, row in _trace(Path(folder)):
        for name in (benchmark, ""):
            sums.setdefault(name, [0.0, 0.0, 0.0])
            for place, field in enumerate(("seconds", "tokens", "items")):
                sums[name][place] += float(row.get(field, 0))
    found = {
        name: Cost(seconds / count, tokens / count, int(count))
        for name, (seconds, tokens, count) in sums.items()
        if count
    }
    if not found:
        raise ReportError(
            f"{folder} was to tell the cost of an item, but it has no trace/*/*/part-*.jsonl: name the "
            f"folder of an earlier `regap eval run`, or leave it out."
        )
    return found


def _trace(folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path in sorted(folder.glob("trace/*/*/part-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # torn by a kill: a plan can do without it
                continue
            yield path.parts[-3], row


def _discordant_shares(folder: Path) -> dict[str, float]:
    if not (folder / METRICS).is_file():
        return {}
    shares: dict[str, float] = {}
    for row in read_json(folder / METRICS, "the metrics of a run")["contrasts"]:
        if row["table"] is not None:
            share = (row["table"]["reference_only"] + row["table"]["other_only"]) / row["known"]
            shares[row["benchmark"]] = max(share, shares.get(row["benchmark"], 0.0))
    return shares


def _planned(
    name: str,
    modes: Mapping[str, int],
    max_new_tokens: int,
    costs: Mapping[str, Cost],
    measured: float | None,
    power: float,
    level: float,
) -> Planned:
    n, answers = max(modes.values()), sum(modes.values())
    cost = costs.get(name) or costs.get("")
    smallest = {
        f"{share:g}": smallest_difference(n, share, power=power, level=level) for share in DISCORDANT_SHARES
    }
    return Planned(
        name,
        n,
        tuple(modes),
        answers,
        answers * max_new_tokens,
        None if cost is None else answers * cost.seconds,
        wilson(n // 2, n),
        zero_event_upper(n),
        smallest,
        measured,
        smallest_difference(n, measured, power=power, level=level) if measured else None,
    )


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """The plan for people."""
    lines = []
    for row in plan["benchmarks"]:
        shares = ", ".join(
            f"{_points(found)} at {float(share):.0%}" for share, found in row["smallest"].items()
        )
        lines += [
            f"{row['benchmark']}: {row['items']} items in {len(row['modes'])} image modes "
            f"({', '.join(row['modes'])}) are {row['answers']} answers, {_time(row['seconds'])}",
            f"  a rate of one half will have the interval {interval(*row['interval'])} %; no event at all "
            f"leaves up to {percent(row['zero_upper'])}",
            f"  smallest paired difference by the share of items on which arms differ: {shares}",
        ]
        if row["measured"]:
            lines.append(
                f"  the earlier run differed on {row['measured']:.1%}: {_points(row['smallest_at_measured'])}"
            )
        elif (at_typical := row["smallest"][f"{TYPICAL:g}"]) is not None:
            lines.append(f"  so expect to see differences of {_points(at_typical)} and more, and none below")
    lines.append(
        f"all: {plan['answers']} answers of at most {plan['most_tokens']} tokens, {plan['judgements']} "
        f"judgements, {_time(plan['seconds'])} on {plan['num_shards']} device(s); power {plan['power']:.0%} "
        f"at {1 - plan['level']:.0%}"
    )
    return lines


def _points(difference: float | None) -> str:
    return "nothing" if difference is None else f"{100 * difference:.1f} points"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return f"time {NONE} (name an earlier run to know)"
    hours, rest = divmod(round(seconds), 3600)
    return f"about {hours} h {rest // 60:02d} min" if hours else f"about {rest // 60} min {rest % 60:02d} s"
