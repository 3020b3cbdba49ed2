"""The tables of a report: strings in rows, the same for the page and for the model card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regap_patch.report.captions import caption
from regap_patch.report.formats import NONE, interval, number, percent
from regap_patch.report.outcomes import CLASSES

Metrics = Mapping[str, Any]
CLUSTERED = "Where a column by clusters is filled, items depend on each other: go by it (cluster bootstrap)."


@dataclass(frozen=True, slots=True)
class Table:
    """One table.

    Attributes:
        name: short, unique; an anchor.
        title: of the table.
        caption: judge, template, decoding, n, intervals, date.
        head: names of the columns.
        rows: as many strings each.
        left: number of columns of words, to the left of those of numbers.
        folded: shown on demand.
    """

    name: str
    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    folded: bool = False


def result(cell: Mapping[str, Any]) -> str:
    """The rate, or why there is none."""
    return "incomplete" if cell["incomplete"] else percent(cell["rate"])


def result_interval(cell: Mapping[str, Any]) -> str:
    """Its interval, or the bounds that unknown judgements leave."""
    if cell["incomplete"]:
        return f"bounds {interval(*cell['bounds'])}"
    return interval(cell["low"], cell["high"])


def _defense(metrics: Metrics) -> str:
    return metrics["provenance"]["defense"] or "none"


def _parity(cell: Mapping[str, Any]) -> str:
    return {True: "yes", False: "NO", None: "not tested"}[cell["batch_parity"]]


def _cells(
    runs: Sequence[Metrics], kinds: Sequence[str], *, scenarios: bool
) -> Iterable[tuple[Metrics, Any]]:
    for metrics in runs:
        for cell in metrics["cells"]:
            if cell["kind"] in kinds and (cell["scenario"] is not None) == scenarios:
                yield metrics, cell


def rates_table(runs: Sequence[Metrics]) -> Table:
    """Unsafe rate and over-refusal of every benchmark and image mode."""
    rows = [
        (
            metrics["name"],
            _defense(metrics),
            cell["benchmark"],
            measure_in_words(metrics, cell),
            cell["image_mode"],
            cell["judge"],
            str(cell["n"]),
            result(cell),
            result_interval(cell),
            _resampled(cell),
            _macro(cell),
            str(cell["unknown"]),
            NONE if cell["zero_event_upper"] is None else percent(cell["zero_event_upper"]),
            NONE if cell["corrected"] is None or cell["incomplete"] else percent(cell["corrected"]["rate"]),
            percent(cell["truncated"]),
            _parity(cell),
        )
        for metrics, cell in _cells(runs, ("harm", "benign"), scenarios=False)
    ]
    head = (
        *("run", "defence", "benchmark", "measure", "image mode", "judge"),
        *("n", "rate (micro)", "95 % interval", "by clusters", "macro", "unknown", "upper bound at 0 events"),
        *("without the judge's errors", "truncated answers", "batch parity"),
    )
    what = (
        "Share of answers judged unsafe (harmful requests) or refused (harmless ones); Wilson intervals. "
        f"{CLUSTERED}"
    )
    return Table("rates", "Unsafe rate and over-refusal", caption(runs, what), head, tuple(rows), 6)


def measure_in_words(metrics: Metrics, cell: Mapping[str, Any]) -> str:
    """What is counted; a judge whose rate may not be quoted names it otherwise."""
    about = metrics["provenance"]["about_judges"].get(cell["judge"], {})
    if cell["kind"] != "harm" or cell["may_be_quoted"]:
        return str(cell["measure"])
    return str(about.get("measure", "not to be quoted"))


def _resampled(cell: Mapping[str, Any]) -> str:
    """The cluster bootstrap's interval, where items depend on each other."""
    found = cell["bootstrap"]
    return NONE if found is None or cell["incomplete"] else interval(*(found["bca"] or found["percentile"]))


def _macro(cell: Mapping[str, Any]) -> str:
    macro = cell["macro"]
    if macro is None or cell["incomplete"]:
        return NONE
    return f"{percent(macro['rate'])} ({interval(macro['low'], macro['high'])})"


def utility_table(runs: Sequence[Metrics]) -> Table:
    """Mean scores of the utility benchmarks."""
    rows = [
        (
            *(metrics["name"], _defense(metrics), cell["benchmark"], cell["image_mode"], cell["judge"]),
            *(str(cell["n"]), result(cell), result_interval(cell), cell["method"], str(cell["unknown"])),
        )
        for metrics, cell in _cells(runs, ("utility",), scenarios=False)
    ]
    head = (
        *("run", "defence", "benchmark", "image mode", "scorer"),
        *("n", "mean score", "95 % interval", "method", "unknown"),
    )
    what = "Mean score of the items, in percent; the column `method` says of which kind the interval is."
    return Table("utility", "Utility", caption(runs, what), head, tuple(rows), 5)


def scenarios_table(runs: Sequence[Metrics]) -> Table:
    """Every scenario of every benchmark."""
    rows = [
        (
            *(metrics["name"], cell["benchmark"], cell["scenario"] or "(none)", cell["measure"]),
            *(cell["image_mode"], cell["judge"]),
            *(str(cell["n"]), result(cell), result_interval(cell), str(cell["unknown"])),
        )
        for metrics, cell in _cells(runs, ("harm", "benign", "utility"), scenarios=True)
    ]
    head = (
        *("run", "benchmark", "scenario", "measure", "image mode", "judge"),
        *("n", "rate", "95 % interval", "unknown"),
    )
    what = "By scenario; Wilson intervals."
    return Table("scenarios", "Scenarios", caption(runs, what), head, tuple(rows), 6, folded=True)


def classes_table(runs: Sequence[Metrics]) -> Table:
    """How the answers divide into classes: a model that breaks down also looks safe."""
    rows = [
        (
            *(
                metrics["name"],
                cell["benchmark"],
                cell["kind"],
                cell["image_mode"],
                cell["judge"],
                str(cell["n"]),
            ),
            *(percent(cell["classes"][name] / cell["n"]) for name in CLASSES),
        )
        for metrics, cell in _cells(runs, ("harm", "benign"), scenarios=False)
    ]
    head = ("run", "benchmark", "kind", "image mode", "judge", "n", *CLASSES)
    what = "Shares of the classes of answers, as each judge names them; without intervals."
    return Table("classes", "Classes of answers", caption(runs, what), head, tuple(rows), 5)


def agreement_table(runs: Sequence[Metrics]) -> Table:
    """Kappa of every two judges."""
    rows = [
        (
            metrics["name"],
            " and ".join(row["judges"]),
            str(row["n"]),
            number(row["kappa"]),
            NONE
            if row["interval"] is None
            else f"{number(row['interval'][0])} to {number(row['interval'][1])}",
            percent(row["observed"]),
        )
        for metrics in runs
        for row in metrics["agreement"]
    ]
    head = ("run", "judges", "n scored by both", "Cohen's kappa", "95 % interval", "say the same")
    what = "Safe or unsafe, by two judges of the same answers; bootstrap intervals."
    return Table("agreement", "Agreement of judges", caption(runs, what), head, tuple(rows), 2)


def thresholds_table(runs: Sequence[Metrics]) -> Table:
    """Unsafe rate over the threshold of judges that give a probability."""
    found = [
        (metrics, cell) for metrics, cell in _cells(runs, ("harm",), scenarios=False) if cell["thresholds"]
    ]
    rows = [
        (
            *(metrics["name"], cell["benchmark"], cell["image_mode"], cell["judge"], str(cell["n"])),
            *(percent(rate) for _, rate in cell["thresholds"]),
        )
        for metrics, cell in found
    ]
    cuts = [f"> {cut:g}" for cut, _ in found[0][1]["thresholds"]] if found else []
    head = ("run", "benchmark", "image mode", "judge", "n", *cuts)
    what = (
        "Unsafe rate if another threshold were put on the judge's probability; unknown ones count as safe; "
        "without intervals."
    )
    return Table("thresholds", "Thresholds", caption(runs, what), head, tuple(rows), 4, folded=True)
