"""Two runs over the same items: what the second changes, pair by pair, or why they cannot be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from regap_patch.errors import ReportError
from regap_patch.records import IMAGE_MODES, Sample
from regap_patch.report.bootstrap import bootstrap
from regap_patch.report.cells import bootstrap_fields
from regap_patch.report.contrasts import MARGIN, contrast_of, with_holm
from regap_patch.report.json_files import write_json
from regap_patch.report.metrics import judges_of
from regap_patch.report.outcomes import Outcome, clusters_of, outcomes_of
from regap_patch.report.run_folder import Evaluation, Item, read_evaluation

SCHEMA = "regap.compare/1"
_SAME = ("template", "template_text", "decoding", "seed")
_OF_SAMPLES: dict[str, Callable[[Sample], Any]] = {
    "prompts": lambda sample: sample.prompt,
    "questions to the judge": lambda sample: sample.judge_question,
    "pictures": lambda sample: sample.image_sha256,
    "texts in the picture's place": lambda sample: sample.meta.get("words"),
    "kinds": lambda sample: sample.kind,
    "scenarios": lambda sample: (sample.benchmark, sample.meta.get("block"), sample.scenario),
    "clusters": lambda sample: sample.cluster,
}


def compare_runs(
    first: str | Path,
    second: str | Path,
    *,
    margin: float = MARGIN,
    output_path: str | Path | None = None,
) -> dict[str, Any]:
    """Compare two run folders; differences are the second minus the first.

    Args:
        first: the reference.
        second: the other.
        margin: of non-inferiority of utility.
        output_path: file to write the result to.

    Raises:
        ReportError: they differ in items, prompts, pictures, image modes, template, decoding or judges.
    """
    found = comparison_of(read_evaluation(first), read_evaluation(second), margin=margin)
    if output_path is not None:
        write_json(Path(output_path), found)
    return found


def comparison_of(first: Evaluation, second: Evaluation, *, margin: float = MARGIN) -> dict[str, Any]:
    """As `compare_runs`, of runs that were read.

    Items that one of them left out, because its defences were fitted on them, are left out of both.

    Raises:
        ReportError: as there.
    """
    fitted = _fitted(first) | _fitted(second)
    first, second = _without(first, fitted), _without(second, fitted)
    check_comparable(first, second)
    contrasts: list[dict[str, Any]] = []
    tax: list[dict[str, Any]] = []
    ours, theirs = _grouped(first.items), _grouped(second.items)
    for (benchmark, kind), modes in ours.items():
        for judge in judges_of(first, benchmark, kind):
            where = {"benchmark": benchmark, "kind": kind, "judge": judge}
            arms = {
                mode: (outcomes_of(items, judge), outcomes_of(theirs[benchmark, kind][mode], judge))
                for mode, items in modes.items()
            }
            for mode, (reference, other) in arms.items():
                found = contrast_of(reference, other, margin=margin if kind == "utility" else None)
                contrasts.append({**where, "image_mode": mode, **found})
            tax += [{**where, **row} for row in _taxes(arms)]
    return {
        "schema": SCHEMA,
        "first": {"name": first.name, "inputs": first.inputs, "defense": first.defense},
        "second": {"name": second.name, "inputs": second.inputs, "defense": second.defense},
        "judges": dict(first.judges),
        "left_out": sorted(fitted),
        "incomplete": any(row["incomplete"] for row in contrasts),
        "contrasts": with_holm(contrasts, ("kind", "image_mode", "judge")),
        "image_tax": tax,
    }


def check_comparable(first: Evaluation, second: Evaluation) -> None:
    """Refuse runs whose numbers differ by more than what is to be compared.

    Raises:
        ReportError: one sentence with the first difference found.
    """
    asked = f"{first.folder} and {second.folder} were to be compared, but"
    remedy = "run both with the same settings."
    for name in _SAME:
        one, other = first.setting(name), second.setting(name)
        if one != other:
            raise ReportError(f"{asked} their {name} differs ({_short(one)} and {_short(other)}): {remedy}")
    modes = [sorted({item.sample.image_mode for item in run.items}) for run in (first, second)]
    if modes[0] != modes[1]:
        raise ReportError(
            f"{asked} their image modes differ ({_list(modes[0])} and {_list(modes[1])}): {remedy}"
        )
    samples = [{item.key: item.sample for item in run.items} for run in (first, second)]
    alone = sorted(samples[0].keys() ^ samples[1].keys())
    if alone:
        raise ReportError(
            f"{asked} {len(alone)} items are in one of them alone ({alone[0][0]} in mode {alone[0][1]} is "
            f"the first): {remedy}"
        )
    for what, of in _OF_SAMPLES.items():
        other_ones = [key for key, sample in samples[0].items() if of(sample) != of(samples[1][key])]
        if other_ones:
            raise ReportError(
                f"{asked} {len(other_ones)} {what} differ ({other_ones[0][0]} in mode {other_ones[0][1]} is "
                f"the first): {remedy}"
            )
    if _judging(first) != _judging(second):
        raise ReportError(
            f"{asked} their judges differ ({_judges(first)} and {_judges(second)}): judge both with the same "
            f"ones."
        )


def _fitted(run: Evaluation) -> set[str]:
    return {uid for uids in (run.manifest.get("left_out") or {}).values() for uid in uids}


def _without(run: Evaluation, uids: Collection[str]) -> Evaluation:
    return replace(run, items=tuple(item for item in run.items if item.sample.uid not in uids))


def _short(value: Any, longest: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}..."


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _judging(run: Evaluation) -> Any:
    settings = {judge: [about.get("settings"), about.get("threshold")] for judge, about in run.about.items()}
    return run.judges, run.judged, settings


def _judges(run: Evaluation) -> str:
    """Who judged what: `beaver-dam-7b 0123 > 0.5 on figstep`."""
    words = []
    for judge, benchmark in sorted({(judge, benchmark) for judge, benchmark, _ in run.judged}):
        threshold = run.about[judge].get("threshold")
        cut = "" if threshold is None else f" > {threshold}"
        words.append(f"{judge} {run.judges[judge]}{cut} on {benchmark}")
    return _list(words)


def _grouped(items: Iterable[Item]) -> dict[tuple[str, str], dict[str, list[Item]]]:
    groups: dict[tuple[str, str], dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in sorted(items, key=lambda item: IMAGE_MODES.index(item.sample.image_mode)):
        groups[item.benchmark, item.sample.kind][item.sample.image_mode].append(item)
    return groups


def _taxes(arms: Mapping[str, tuple[Sequence[Outcome], Sequence[Outcome]]]) -> Iterable[dict[str, Any]]:
    """How far the second run changes what each image mode adds to text alone: a difference of differences."""
    if "none" not in arms:
        return
    bases = [{outcome.uid: outcome.value for outcome in arm} for arm in arms["none"]]
    for mode, (reference, other) in arms.items():
        if mode == "none":
            continue
        theirs = {outcome.uid: outcome.value for outcome in other}
        changes = [
            (
                outcome.cluster,
                _minus(
                    _minus(theirs[outcome.uid], bases[1].get(outcome.uid)),
                    _minus(outcome.value, bases[0].get(outcome.uid)),
                ),
            )
            for outcome in reference
        ]
        known = [(cluster, change) for cluster, change in changes if change is not None]
        if known:
            found = bootstrap([clusters_of(known)], within=(-2.0, 2.0))
            interval = found.bca or found.percentile
            yield {
                "image_mode": mode,
                "reference": "none",
                "known": len(known),
                "pairs": len(changes),
                "change": sum(value for _, value in known) / len(known),
                "low": interval.low,
                "high": interval.high,
                "bootstrap": bootstrap_fields(found),
            }


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
