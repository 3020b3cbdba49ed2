"""`means.csv`: each number of the outcome table as a mean over the LLMs, for the page's tables."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from regap_patch.report.json_files import write_text

from .outcome_table import Outcome
from .student import mean_of


class Mean(NamedTuple):
    """A mean over LLMs.

    Attributes:
        variant: as in `Outcome`, and so are the next four.
        arm: how the projector was trained; "" at stage "llm".
        stage: before any image, after stage 1, after stage 2.
        condition: what stood where the image goes.
        metric: what was measured.
        mean: over the LLMs, each weighing the same.
        sd: between them; None of a single one.
        low: lower end of the t interval of the mean over LLMs; None of a single one.
        high: its upper end.
        llms: how many.
    """

    variant: str
    arm: str
    stage: str
    condition: str
    metric: str
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    llms: int


def means_of(rows: Iterable[Outcome], level: float, leave_out: Collection[int] = ()) -> list[Mean]:
    """One mean for each variant, arm, stage, condition and metric, in the order of the table.

    Args:
        rows: the table of outcomes.
        level: of the intervals.
        leave_out: seeds of LLMs that count for nothing here: the pilot's.
    """
    groups: dict[tuple[str, str, str, str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row.llm not in leave_out:
            groups[row.variant, row.arm, row.stage, row.condition, row.metric].append(row.value)
    found = []
    for key, values in groups.items():
        over = mean_of(values, level)
        found.append(Mean(*key, over.mean, over.sd, over.low, over.high, over.n))
    return found


def write_means(path: Path, means: Iterable[Mean]) -> Path:
    """Write the table, whole or not at all.

    Raises:
        ReportError: the disk does not take it.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Mean._fields)
    writer.writerows(means)
    return write_text(path, file.getvalue())
