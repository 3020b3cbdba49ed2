"""The samples of runs as the page's browser takes them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from regap_patch.report.json_files import finite
from regap_patch.report.redaction import Redaction, hides_answer, hides_prompt, shown
from regap_patch.report.run_folder import Evaluation, Item

LONGEST = 4000  # characters of a text; what is longer says so
MOST_ROWS = 12_000  # of a page, which a browser still opens at once


def rows_of(run: Evaluation, redaction: Redaction) -> list[dict[str, Any]]:
    """One row an item, in the order of the run."""
    return [_row(run, item, redaction) for item in run.items]


def _row(run: Evaluation, item: Item, redaction: Redaction) -> dict[str, Any]:
    sample, answer = item.sample, item.answer
    text = "" if answer is None else answer.text
    if answer is not None and answer.error is not None:
        text = f"[no answer: {answer.error}]"
    return {
        "run": run.name,
        "benchmark": item.benchmark,
        "scenario": sample.scenario,
        "kind": sample.kind,
        "mode": sample.image_mode,
        "uid": sample.uid,
        "prompt": _cut(shown(sample.prompt, hides_prompt(item), redaction)),
        "answer": _cut(shown(text, hides_answer(item), redaction)),
        "hide_prompt": hides_prompt(item) and redaction == "blur",
        "hide_answer": hides_answer(item) and redaction == "blur",
        "finish": None if answer is None else answer.finish_reason,
        "image": sample.image,
        "image_sha256": sample.image_sha256,
        "verdicts": [
            {
                "judge": judge,
                "label": verdict.label,
                "class": verdict.response_class,
                "score": verdict.score,
                "error": shown(verdict.error, hides_answer(item), redaction) if verdict.error else None,
            }
            for judge, verdict in sorted(item.verdicts.items())
        ],
    }


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} [and {len(text) - LONGEST} characters more]"


def data_block(runs: Sequence[Evaluation], redaction: Redaction, most: int = MOST_ROWS) -> str:
    """JSON that cannot end the element it stands in, whatever a model said.

    Of more than `most` rows those of evenly spread items stay, in all their image modes and runs; `all` says
    how many there are.
    """
    rows = [row for run in runs for row in rows_of(run, redaction)]
    kept = rows
    if len(rows) > most:
        uids = sorted({row["uid"] for row in rows})
        step = math.ceil(len(rows) / most)
        chosen = set(uids[::step])
        kept = [row for row in rows if row["uid"] in chosen]
    content: Mapping[str, Any] = {"runs": len(runs), "all": len(rows), "rows": kept}
    text = json.dumps(finite(content), ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
