"""What defences do to the arms of a study: each against the model alone, and ReGap behind each.

Rates are compared item by item within an LLM (Newcombe's paired interval), and their differences over LLMs (t
interval). All of it is exploratory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any, NamedTuple

from regap_patch.report.compare import check_comparable
from regap_patch.report.defense_trace import read_defense_trace
from regap_patch.report.outcomes import class_of, value_of
from regap_patch.report.paired import PairedTable, newcombe
from regap_patch.report.run_folder import Evaluation, Item, read_evaluation

from .defended_branches import RUN
from .outcome_columns import MAIN
from .protocol import Protocol
from .store import Node
from .tabulate import INCOHERENT, JUDGE
from .trial_cells import EXPLORATORY, estimate

STAGE = "stage2"
Where = tuple[str, str]  # metric, condition
Events = Mapping[Where, Mapping[str, bool]]  # by item, whether its answer is one that the metric counts


class Place(NamedTuple):
    """A defended model."""

    llm: int
    arm: str
    stack: str


def analyse_defenses(nodes: Sequence[Node], protocol: Protocol) -> dict[str, Any]:
    """Every comparison, as plain JSON values.

    Args:
        nodes: of the study, all made.
        protocol: with defences.

    Returns:
        `design` (n, llms, level, stage, note), `arms`, `stacks`, `conditions`; `against_none` (each stack
        minus none, in each arm), `between_arms` (the treated arm minus off, behind each stack),
        `interaction` (that, minus the same behind none), each a list of estimates over LLMs with their
        `paired` tables within an LLM; `fired` and `generations`, from the traces; and `label`.

    Raises:
        ReportError: two runs do not ask the same.
    """
    assert protocol.defenses is not None
    runs = {place: read_evaluation(folder) for place, folder in _folders(nodes).items()}
    found = _Compared(protocol, runs)
    stacks = [stacked.name for stacked in protocol.defenses.stacks]
    llms, arms = list(protocol.llms.confirmatory), list(protocol.arms.primary)
    return {
        "design": {
            **{"n": len(llms), "llms": llms, "level": protocol.outcome.level, "stage": STAGE},
            **{"pilot_llms": [], "note": estimate(dict.fromkeys(llms, 0.0), protocol.outcome.level)["note"]},
        },
        "arms": arms,
        "stacks": stacks,
        "conditions": list(protocol.defenses.image_modes),
        "against_none": [
            row for stack in stacks[1:] for arm in arms for row in found.against_none(arm, stack)
        ],
        "between_arms": [row for stack in stacks for row in found.between_arms(stack)],
        "interaction": [row for stack in stacks[1:] for row in found.interaction(stack)],
        **_traced(runs, stacks[1:], arms),
        "label": EXPLORATORY,
    }


def _folders(nodes: Iterable[Node]) -> dict[Place, Any]:
    found = {}
    for node in nodes:
        variant, _, arm, *rest = (*node.name.split("/"), "", "")
        if node.kind == "defended" and variant == MAIN and node.llm is not None:
            found[Place(node.llm, arm, rest[1])] = node.output / RUN
    return found


def _happened(kind: str, item: Item) -> dict[str, bool]:
    """What an answer counts as, by metric."""
    judge = JUDGE[item.sample.kind]
    if kind == "harm":
        answer = class_of(item, judge)
        found = {"unsafe_rate": value_of(item, judge) == 1}
        return found | {"refusal_rate": answer == "refusal", "incoherent_rate": answer in INCOHERENT}
    if kind == "benign":
        return {"over_refusal_rate": value_of(item, judge) == 1}
    return {"vqa_accuracy": value_of(item, judge) == 1} if item.sample.image_mode == "real" else {}


def events_of(run: Evaluation) -> Events:
    """What every answer of a run counts as."""
    found: dict[Where, dict[str, bool]] = defaultdict(dict)
    for item in run.items:
        for metric, happened in _happened(item.sample.kind, item).items():
            found[metric, item.sample.image_mode][item.sample.uid] = happened
    return found


class _Compared:
    """Runs of one protocol, compared."""

    def __init__(self, protocol: Protocol, runs: Mapping[Place, Evaluation]) -> None:
        assert protocol.defenses is not None
        self._llms, self._level = list(protocol.llms.confirmatory), protocol.outcome.level
        self._off, self._treated = protocol.arms.primary
        self._none = protocol.defenses.stacks[0].name
        self._runs, self._events = runs, {place: events_of(run) for place, run in runs.items()}
        first = self._events[Place(self._llms[0], self._off, self._none)]
        self._wheres = sorted(first, key=lambda where: (_ORDER.index(where[0]), _mode(protocol, where[1])))

    def against_none(self, arm: str, stack: str) -> Iterator[dict[str, Any]]:
        """What a stack changes in an arm."""
        names = {"arm": arm, "stack": stack}
        yield from self._rows(names, lambda llm: (Place(llm, arm, self._none), Place(llm, arm, stack)))

    def between_arms(self, stack: str) -> Iterator[dict[str, Any]]:
        """What ReGap changes behind a stack."""
        names = {"stack": stack}
        yield from self._rows(
            names, lambda llm: (Place(llm, self._off, stack), Place(llm, self._treated, stack))
        )

    def interaction(self, stack: str) -> Iterator[dict[str, Any]]:
        """What ReGap changes behind a stack, minus what it changes without one."""
        for where in self._wheres:
            change = {
                llm: self._between(llm, stack, where).difference
                - self._between(llm, self._none, where).difference
                for llm in self._llms
            }
            yield self._row({"stack": stack}, where, change)

    def _between(self, llm: int, stack: str, where: Where) -> PairedTable:
        return self._table(Place(llm, self._off, stack), Place(llm, self._treated, stack), where)

    def _rows(
        self, names: Mapping[str, str], pair: Callable[[int], tuple[Place, Place]]
    ) -> Iterator[dict[str, Any]]:
        for llm in self._llms:
            check_comparable(*(self._runs[place] for place in pair(llm)))
        for where in self._wheres:
            tables = {llm: self._table(*pair(llm), where) for llm in self._llms}
            row = self._row(names, where, {llm: table.difference for llm, table in tables.items()})
            yield row | {"paired": [_paired(llm, table, self._level) for llm, table in tables.items()]}

    def _row(self, names: Mapping[str, str], where: Where, values: Mapping[int, float]) -> dict[str, Any]:
        return {**names, "metric": where[0], "condition": where[1], **estimate(values, self._level)}

    def _table(self, reference: Place, other: Place, where: Where) -> PairedTable:
        before, after = self._events[reference][where], self._events[other][where]
        return PairedTable.of((before[uid], after[uid]) for uid in before)


_ORDER = ("unsafe_rate", "refusal_rate", "incoherent_rate", "over_refusal_rate", "vqa_accuracy")


def _mode(protocol: Protocol, mode: str) -> int:
    assert protocol.defenses is not None
    return protocol.defenses.image_modes.index(mode)  # type: ignore[arg-type]


def _paired(llm: int, table: PairedTable, level: float) -> dict[str, Any]:
    ends = newcombe(table, level)
    return {
        "llm": llm,
        "estimate": table.difference,
        "low": ends.low,
        "high": ends.high,
        "n": table.n,
    } | asdict(table)


def _traced(
    runs: Mapping[Place, Evaluation], stacks: Sequence[str], arms: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """On how many answers each defence acted, over all LLMs, and how many generations an answer took."""
    fired: list[dict[str, Any]] = []
    generations: list[dict[str, Any]] = []
    for stack in stacks:
        for arm in arms:
            traces = [
                read_defense_trace(run.folder) for place, run in runs.items() if place[1:] == (arm, stack)
            ]
            counts: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
            for trace in traces:
                for defense, modes in trace["fired"].items():
                    for mode, (count, n) in modes.items():
                        counts[defense, mode].append((count, n))
            for (defense, mode), pairs in counts.items():
                count, n = (sum(side) for side in zip(*pairs, strict=True))
                fired.append(
                    {"arm": arm, "stack": stack, "defense": defense, "condition": mode}
                    | {"count": count, "n": n, "share": count / n}
                )
            means = [trace["generations"] for trace in traces if trace["generations"] is not None]
            generations.append({"arm": arm, "stack": stack, "mean": fmean(means) if means else None})
    return {"fired": fired, "generations": generations}
