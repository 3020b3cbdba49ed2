"""How judges fare against people on the answers of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regap_patch.report.agreement import agreement
from regap_patch.report.json_files import write_json
from regap_patch.report.labels import Labelled, labelled_items, read_sheet, strata_of
from regap_patch.report.run_folder import Item


def validate_judges(
    sheets: Sequence[str | Path], folder: str | Path, output_path: str | Path | None = None
) -> dict[str, Any]:
    """What people say beside what the judges say.

    Rows were drawn where judges disagree, so each counts for as many answers of the run as its stratum has
    for each that was labelled: the shares are of the run, not of the sheet.

    Args:
        sheets: filled ones; of several by one annotator each, kappa between people is given too.
        folder: of the run.
        output_path: file for the result.

    Returns:
        By judge, as `regap eval validate-judge` writes it: `sensitivity` and `specificity` as `score_run`
        takes them, kappa over the sheet; and `people`, the agreement of two annotators, None with one.

    Raises:
        ReportError: as `read_sheet`.
    """
    rows = [row for sheet in sheets for row in read_sheet(sheet, folder)]
    population = strata_of(labelled_items(folder))
    majority = _majority(rows)
    drawn = strata_of([item for item, _ in majority])
    weights = {name: len(population[name]) / len(items) for name, items in drawn.items()}
    weight_of = {item.key: weights[name] for name, items in drawn.items() for item in items}
    judges = sorted({judge for item, _ in majority for judge in item.verdicts})
    people = _people(rows)
    found = {judge: {**_against_people(judge, majority, weight_of), "people": people} for judge in judges}
    if output_path is not None:
        write_json(Path(output_path), found)
    return found


def _majority(rows: Sequence[Labelled]) -> list[tuple[Item, str]]:
    """One label an item; where people are split it counts as unsafe."""
    by_item: dict[tuple[str, str], list[Labelled]] = defaultdict(list)
    for row in rows:
        by_item[row.item.key].append(row)
    return [
        (found[0].item, "unsafe" if 2 * sum(row.label == "unsafe" for row in found) >= len(found) else "safe")
        for found in by_item.values()
    ]


def _people(rows: Sequence[Labelled]) -> dict[str, Any] | None:
    """Kappa of the two annotators who share the most items; None with one alone."""
    by_person: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for row in rows:
        by_person[row.annotator][row.item.key] = row.label
    pairs = [
        (len(by_person[one].keys() & by_person[other].keys()), one, other)
        for one in by_person
        for other in by_person
        if one < other
    ]
    shared, one, other = max(pairs, default=(0, "", ""))
    if not shared:
        return None
    both = by_person[one].keys() & by_person[other].keys()
    found = agreement([(by_person[one][key], by_person[other][key]) for key in sorted(both)])
    return {"annotators": [one, other], "n": found.n, "kappa": found.kappa, "interval": found.interval}


def _against_people(
    judge: str, majority: Sequence[tuple[Item, str]], weight_of: Mapping[tuple[str, str], float]
) -> dict[str, Any]:
    known = [
        (label, item.verdicts[judge].label, weight_of[item.key])
        for item, label in majority
        if judge in item.verdicts and item.verdicts[judge].label != "unscored"
    ]
    shares = {
        name: _share([(said == label, weight) for people, said, weight in known if people == label])
        for name, label in (("sensitivity", "unsafe"), ("specificity", "safe"))
    }
    kappa = agreement([(people, said) for people, said, _ in known]) if known else None
    return {
        "finding": "unsafe",
        "items": len(majority),
        "unscored": len(majority) - len(known),
        **shares,
        "kappa": None if kappa is None else kappa.kappa,
        "kappa_interval": None if kappa is None else kappa.interval,
    }


def _share(found: Sequence[tuple[bool, float]]) -> list[float]:
    """(found, all), where all is how many equally weighing rows would say as much (Kish 1965)."""
    total = sum(weight for _, weight in found)
    if not total:
        return [0.0, 0.0]
    rows = total**2 / sum(weight**2 for _, weight in found)
    return [rows * sum(weight for hit, weight in found if hit) / total, rows]
