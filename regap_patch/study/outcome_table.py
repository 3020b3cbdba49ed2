"""What a study measured, as two tables: `outcomes.csv`, and `training.csv` for the gap along training.

A row of the first is one number of one branch. Its key, by which pages and tests name it, is
`variant/llm-<seed>/arm/stage/condition/metric`, with "-" for what does not apply.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from regap_patch.errors import StudyError
from regap_patch.report.json_files import write_text

from .outcome_columns import ASKED, COLUMNS, GAPS, MAIN, SHARES

_ROUNDING = 1e-6


class Outcome(NamedTuple):
    """One number of one branch.

    Attributes:
        variant: `MAIN`, or the name of an exploratory setting.
        llm: seed of the base language model.
        arm: how the projector was trained; "" at stage "llm".
        stage: one of `STAGES`.
        condition: what stood where the image goes, "none" for bare text; "" where that is no question.
        metric: one of `METRICS`.
        value: the number; a share in [0, 1].
        stderr: its error from the items asked; None where there is none.
        count: items that had the event; None where the number is no share of items.
        n: items asked.
        source: file that it was read from, relative to the study's folder.
    """

    variant: str
    llm: int
    arm: str
    stage: str
    condition: str
    metric: str
    value: float
    stderr: float | None
    count: int | None  # type: ignore[assignment]  # a row has no use for tuple.count
    n: int | None
    source: str

    @property
    def key(self) -> str:
        """The row's name."""
        return outcome_key(*self[:6])


class TrainingStep(NamedTuple):
    """What training logged at one step: norms and distances of the batch, before its update.

    Attributes:
        variant: as in `Outcome`, and so are `llm` and `arm`.
        llm: seed of the base language model.
        arm: how the projector was trained.
        stage: "stage1" or "stage2"; each counts its own steps.
        step: optimizer step; 0 is the projector as it was made.
        centroid_l2: distance of the means of image rows and of text rows.
        pairwise_sq: mean squared distance of the two.
        image_norm: mean norm of image rows.
        text_norm: mean norm of text rows.
        loss_lm: nats per token.
    """

    variant: str
    llm: int
    arm: str
    stage: str
    step: int
    centroid_l2: float
    pairwise_sq: float | None
    image_norm: float | None
    text_norm: float | None
    loss_lm: float | None


Row = TypeVar("Row", Outcome, TrainingStep)


def outcome_key(variant: str, llm: int, arm: str, stage: str, condition: str, metric: str) -> str:
    """`variant/llm-<seed>/arm/stage/condition/metric`."""
    return f"{variant}/llm-{llm}/{arm or '-'}/{stage}/{condition or '-'}/{metric}"


def write_outcomes(path: str | Path, rows: Iterable[Outcome]) -> Path:
    """Write the table, whole or not at all.

    Raises:
        StudyError: a row that `read_outcomes` would refuse.
        ReportError: the disk does not take it.
    """
    return _write(Path(path), Outcome, rows)


def read_outcomes(path: str | Path) -> list[Outcome]:
    """The rows in the file's order.

    Raises:
        StudyError: no such file, another header, a value that its column cannot have, or a key twice.
    """
    return _read(Path(path), Outcome)


def write_training(path: str | Path, rows: Iterable[TrainingStep]) -> Path:
    """As `write_outcomes`."""
    return _write(Path(path), TrainingStep, rows)


def read_training(path: str | Path) -> list[TrainingStep]:
    """As `read_outcomes`."""
    return _read(Path(path), TrainingStep)


class Outcomes:
    """A table by key.

    Raises:
        StudyError: two rows of one key.
    """

    def __init__(self, rows: Iterable[Outcome]) -> None:
        self.rows: Mapping[tuple[Any, ...], Outcome] = _by_key(rows, "A table of outcomes")

    def find(
        self, llm: int, arm: str, stage: str, condition: str, metric: str, *, variant: str = MAIN
    ) -> Outcome | None:
        """A row, None if it was not measured."""
        return self.rows.get((variant, llm, arm, stage, condition, metric))

    def value(
        self, llm: int, arm: str, stage: str, condition: str, metric: str, *, variant: str = MAIN
    ) -> float:
        """The number of a row.

        Raises:
            StudyError: it was not measured. Nothing is averaged over what happens to be there.
        """
        found = self.find(llm, arm, stage, condition, metric, variant=variant)
        if found is None:
            key = outcome_key(variant, llm, arm, stage, condition, metric)
            some = any(row.variant == variant and row.llm == llm for row in self.rows.values())
            lacks = "which has other rows of this LLM" if some else f"which has no row of LLM {llm} at all"
            raise StudyError(
                f"The analysis needs {key}, but it is not in the table of outcomes, {lacks}: let "
                f"`regap study run` finish, then analyse again."
            )
        return found.value


def _write(path: Path, kind: type[Row], rows: Iterable[Row]) -> Path:
    rows = list(rows)
    for number, row in enumerate(rows, start=2):
        _parsed(kind, [_text(value) for value in row], f"{path}, line {number}")
    _by_key(rows, str(path))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(kind._fields)
    writer.writerows([_text(value) for value in row] for row in rows)
    return write_text(path, file.getvalue())


def _text(value: Any) -> str:
    """A cell that reads back as the very same value."""
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


def _read(path: Path, kind: type[Row]) -> list[Row]:
    what = "outcomes" if kind is Outcome else "training steps"
    remedy = "name a file that `regap study run` wrote"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            head, *lines = list(csv.reader(file, strict=True)) or [[]]
    except (OSError, ValueError, csv.Error) as error:
        why = f"that failed ({type(error).__name__}: {error})"
        raise StudyError(f"{path} was to be read as a table of {what}, but {why}: {remedy}.") from error
    if tuple(head) != kind._fields:
        raise StudyError(
            f"{path} was to be read as a table of {what} with the columns {', '.join(kind._fields)}, but its "
            f"first line is {', '.join(head) or 'empty'}: {remedy}."
        )
    rows = [_parsed(kind, line, f"{path}, line {number}") for number, line in enumerate(lines, start=2)]
    _by_key(rows, str(path))
    return rows


def _by_key(rows: Iterable[Row], where: str) -> dict[tuple[Any, ...], Row]:
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row[: 6 if isinstance(row, Outcome) else 5])
        if key in found:
            name = row.key if isinstance(row, Outcome) else "/".join(map(str, key))
            raise StudyError(f"{where} has {name} twice, so that it is unclear which counts: keep one row.")
        found[key] = row
    return found


def _parsed(kind: type[Row], cells: Sequence[str], where: str) -> Row:
    if len(cells) != len(kind._fields):
        raise StudyError(
            f"{where}: a row of {len(kind._fields)} values was expected, but there are {len(cells)}: write "
            f"the table anew."
        )
    values: dict[str, Any] = {}
    for name, cell in zip(kind._fields, cells, strict=True):
        convert, expected = COLUMNS[name]
        try:
            values[name] = convert(cell)
        except ValueError:
            raise StudyError(
                f"{where}: {name} is {cell!r}, but it has to be {expected}: write the table anew."
            ) from None
    row = kind(**values)
    fault = _fault(row) if isinstance(row, Outcome) else _step_fault(row)
    if fault:
        raise StudyError(f"{where}: {fault}: write the table anew.")
    return row


def _fault(row: Outcome) -> str | None:
    """What the values of a row say against each other."""
    no_arm, asked = row.stage == "llm", row.metric in ASKED
    share = row.metric not in SHARES or 0 <= row.value <= 1
    counts = (row.count is None) == (row.n is None)
    faults = {
        f"the arm is {row.arm!r} at stage {row.stage!r}, but before any image there is none, and after it "
        f"there is one": no_arm != (row.arm == ""),
        f"the condition of {row.metric} is {row.condition!r}, but it is measured "
        f"{'in a condition' if asked else 'of the checkpoint alone'}": asked != (row.condition != "")
        and (asked or row.metric in GAPS),
        f"{row.metric} is {row.value}, but a share lies between 0 and 1": not share,
        f"count {row.count} and n {row.n} belong together, 0 <= count <= n with n > 0": not counts
        or (row.n is not None and row.count is not None and not 0 <= row.count <= row.n != 0),
    }
    found = next((text for text, wrong in faults.items() if wrong), None)
    if found is None and row.n and row.count is not None and abs(row.value - row.count / row.n) > _ROUNDING:
        found = f"{row.metric} is {row.value}, but {row.count} of {row.n} is {row.count / row.n}"
    return found


def _step_fault(row: TrainingStep) -> str | None:
    return "stage is 'llm', but no projector is trained before stage 1" if row.stage == "llm" else None
