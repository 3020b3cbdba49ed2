"""What a training run logged, read from the `trainer_state.json` that it left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regap_patch.errors import ReportError

STATE = "trainer_state.json"
PREFIX = "regap/"


@dataclass(frozen=True, slots=True)
class RunLog:
    """The log of one run.

    Attributes:
        name: how a figure calls it.
        series: by key, without `regap/`: (optimizer step, value) of every line that has the key, in order.
    """

    name: str
    series: dict[str, list[tuple[int, float]]]


def _state_of(path: Path) -> Path:
    """The file itself, that of a folder, or that of the newest checkpoint of a run that has not ended."""
    if path.is_file():
        return path
    if (path / STATE).is_file():
        return path / STATE
    numbered = [
        (int(found.parent.name.rpartition("-")[2]), found)
        for found in path.glob(f"checkpoint-*/{STATE}")
        if found.parent.name.rpartition("-")[2].isdigit()
    ]
    if not numbered:
        raise ReportError(
            f"{path} was to be plotted, but neither it nor a checkpoint-N in it holds a {STATE}: name the "
            f"output folder of a training run, or the file itself."
        )
    return max(numbered)[1]


def _history(path: Path) -> list[dict[str, Any]]:
    try:
        state = json.loads(path.read_text())
        history = state["log_history"]
        rows = [row for row in history if isinstance(row["step"], int)]
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(
            f"{path} cannot be read as the state of a transformers.Trainer ({type(error).__name__}: "
            f"{error}): name the {STATE} that a training run left."
        ) from error
    return rows


def read_run(path: str | Path) -> RunLog:
    """Read one run.

    Args:
        path: its output folder, one of its checkpoints, or a `trainer_state.json`.

    Raises:
        ReportError: there is no such file, it is none of a Trainer's, or it was logged without ReGap.
    """
    given = Path(path)
    state = _state_of(given)
    series: dict[str, list[tuple[int, float]]] = {}
    for row in _history(state):
        for key, value in row.items():
            if key.startswith(PREFIX):
                series.setdefault(key.removeprefix(PREFIX), []).append((row["step"], float(value)))
    if not series:
        raise ReportError(
            f"{state} has no line with {PREFIX}...: train with `python -m regap_patch.run` or a "
            f"ReGapCallback (--regap_loss off records without changing the run)."
        )
    folder = given.parent if given.is_file() else given
    return RunLog(folder.resolve().name, series)


def read_runs(paths: Sequence[str | Path]) -> list[RunLog]:
    """Read several runs; those that would share a name are called by the paths given.

    Raises:
        ReportError: as `read_run`.
    """
    runs = [read_run(path) for path in paths]
    names = [run.name for run in runs]
    return [
        replace(run, name=str(path)) if names.count(run.name) > 1 else run
        for run, path in zip(runs, paths, strict=True)
    ]
