"""The tables of differences: an image mode against text, a run against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regap_patch.report.captions import caption
from regap_patch.report.formats import NONE, p_value, percent, points, points_interval
from regap_patch.report.tables import (
    CLUSTERED,
    Metrics,
    Table,
    agreement_table,
    classes_table,
    rates_table,
    scenarios_table,
    thresholds_table,
    utility_table,
)


def tax_table(runs: Sequence[Metrics]) -> Table:
    """What each image mode adds to text alone, and to words in its place."""
    rows = [
        (
            metrics["name"],
            *_contrast_words(row, ("benchmark", "kind", "judge", "image_mode", "reference")),
            *_paired(row),
        )
        for metrics in runs
        for row in metrics["contrasts"]
        if row["kind"] != "utility"
    ]
    head = ("run", "benchmark", "kind", "judge", "image mode", "against", *_PAIRED_HEAD)
    what = (
        "Image tax: the same items asked with an image mode and with its reference (none: text alone; words: "
        "a neutral text in the image's place). Points; Newcombe's intervals, exact McNemar mid-p, Holm over "
        "the benchmarks of a mode. The 2x2 table counts items with the event in both, the reference alone, "
        f"the mode alone, neither. {CLUSTERED}"
    )
    return Table("tax", "Image tax", caption(runs, what), head, tuple(rows), 6)


_PAIRED_HEAD = (
    *("pairs", "reference rate", "rate", "difference", "95 % interval", "by clusters"),
    *("2x2", "mid-p", "p by clusters", "Holm", "unknown pairs", "bounds"),
)


def _contrast_words(row: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in names)


def _paired(row: Mapping[str, Any]) -> tuple[str, ...]:
    ends = None if row["low"] is None else (row["low"], row["high"])
    quoted = not row["incomplete"]
    return (
        str(row["pairs"]),
        percent(row["rate_reference"]) if quoted else NONE,
        percent(row["rate"]) if quoted else NONE,
        points(row["difference"]) if quoted else "incomplete",
        points_interval(ends) if quoted else NONE,
        _resampled(row) if quoted else NONE,
        NONE if row["table"] is None else " / ".join(map(str, row["table"].values())),
        p_value(row["mid_p"]) if quoted else NONE,
        p_value(row["cluster_p"]) if quoted else NONE,
        p_value(row["p_holm"]) if quoted else NONE,
        str(row["unknown"]),
        points_interval(row["bounds"]),
    )


def _resampled(row: Mapping[str, Any]) -> str:
    found = row["bootstrap"]
    return NONE if found is None else points_interval(found["bca"] or found["percentile"])


def comparison_table(runs: Sequence[Metrics], comparisons: Sequence[Mapping[str, Any]]) -> Table:
    """Each run against the first, item by item."""
    rows = [
        (
            found["second"]["name"],
            found["first"]["name"],
            *_contrast_words(row, ("benchmark", "kind", "judge", "image_mode")),
            *_paired(row),
            NONE
            if row["incomplete"]
            else {True: "kept", False: "not shown", None: NONE}[row["non_inferior"]],
        )
        for found in comparisons
        for row in found["contrasts"]
    ]
    head = ("run", "against", "benchmark", "kind", "judge", "image mode", *_PAIRED_HEAD, "utility kept")
    what = (
        "The same items under two runs; points, the run minus the one it is set against. Newcombe's "
        "intervals (a cluster bootstrap where scores are graded or items depend on each other), exact "
        "McNemar mid-p, Holm over the benchmarks of a mode. Utility counts as kept if the interval's lower "
        f"end lies above minus the margin. {CLUSTERED}"
    )
    return Table("runs", "Runs against the first", caption(runs, what), head, tuple(rows), 6)


def tax_change_table(runs: Sequence[Metrics], comparisons: Sequence[Mapping[str, Any]]) -> Table:
    """How far a run changes the image tax of the first."""
    rows = [
        (
            found["second"]["name"],
            *_contrast_words(row, ("benchmark", "kind", "judge", "image_mode")),
            f"{row['known']} of {row['pairs']}",
            points(row["change"]),
            points_interval((row["low"], row["high"])),
        )
        for found in comparisons
        for row in found["image_tax"]
        if row["kind"] != "utility"
    ]
    head = (
        "run",
        "benchmark",
        "kind",
        "judge",
        "image mode",
        "items known",
        "change of the tax",
        "95 % interval",
    )
    what = "What a run changes of the first run's image tax, (mode minus none); cluster bootstrap intervals."
    return Table("tax-change", "Change of the image tax", caption(runs, what), head, tuple(rows), 5)


def all_tables(runs: Sequence[Metrics], comparisons: Sequence[Mapping[str, Any]] = ()) -> list[Table]:
    """Those that have a row, in the order of a report."""
    tables = [rates_table(runs), tax_table(runs)]
    if comparisons:
        tables += [comparison_table(runs, comparisons), tax_change_table(runs, comparisons)]
    tables += [utility_table(runs), classes_table(runs), agreement_table(runs), thresholds_table(runs)]
    return [table for table in (*tables, scenarios_table(runs)) if table.rows]
