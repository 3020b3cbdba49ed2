"""POPE's F1, MME's sums and the like: utility as papers quote it, beside the rates of `metrics.json`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

FILE = "utility.json"
SCHEMA = "regap.utility/1"


def known_lines(run: Path) -> list[str]:
    """Compute them for a run, write `utility.json` into its folder, and say them.

    Without utility items nothing is written; where the scorers are not installed, a line says so.

    Raises:
        ReportError: no such run.
    """
    from regap_patch.errors import BenchmarkError
    from regap_patch.report.json_files import write_json
    from regap_patch.report.run_folder import read_evaluation
    from regap_patch.safety.benchmarks.scoring import known_numbers

    evaluation = read_evaluation(run)
    utility = [item for item in evaluation.items if item.sample.kind == "utility"]
    said = [(item.sample, item.answer) for item in utility]
    answered = [(item, answer.text) for item, answer in said if answer is not None and answer.error is None]
    try:
        numbers = known_numbers(answered)
    except BenchmarkError as error:
        return [f"{evaluation.name}: {error}"]
    if not numbers:
        return []
    asked: Counter[tuple[str, str]] = Counter(
        (one.sample.benchmark, one.sample.image_mode) for one in utility
    )
    done: Counter[tuple[str, str]] = Counter((item.benchmark, item.image_mode) for item, _ in answered)
    rows, lines = [], []
    for benchmark, modes in numbers.items():
        for mode, known in modes.items():
            counts = {"answered": done[benchmark, mode], "asked": asked[benchmark, mode]}
            rows.append({"benchmark": benchmark, "image_mode": mode, **counts, "numbers": known})
            share = f"{done[benchmark, mode]} of {asked[benchmark, mode]} answered"
            values = ", ".join(f"{name} {value:.4g}" for name, value in known.items())
            lines.append(f"{evaluation.name}: {benchmark}, {mode}, {share}: {values}")
    write_json(run / FILE, {"schema": SCHEMA, "rows": rows})
    return lines
