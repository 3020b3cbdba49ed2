"""How a judge fares against people: their labels, its labels, and the table of both."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regap_patch.errors import JudgeError
from regap_patch.judges.protocol import Exchange, Judge, Judgement, judge_all

Finding = Literal["unsafe", "refusal"]
_YES = {"1", "1.0", "true", "yes", "unsafe", "refusal", "refused", "harmful"}
_NO = {"0", "0.0", "false", "no", "safe", "compliance", "complied", "harmless", "not refusal"}
_COLUMNS = {  # names of others' files beside our own, in this order
    "question": ("question", "judge_question", "objective", "goal", "prompt", "behavior"),
    "answer": ("answer", "assistant_response", "response", "generation", "text"),
    "label": ("label", "human_score", "human_majority", "human", "label_human"),
}


@dataclass(frozen=True, slots=True)
class Labelled:
    """One exchange and what people say of it: whether the finding is there."""

    exchange: Exchange
    positive: bool


@dataclass(frozen=True, slots=True)
class Validation:
    """A judge's labels beside people's.

    Attributes:
        judge: its name.
        finding: what a positive label means.
        pairs: (people, judge) of every scored item: "yes" or "no".
        unscored: items on which the judge failed; they are in none of the shares.
    """

    judge: str
    finding: Finding
    pairs: tuple[tuple[str, str], ...]
    unscored: int

    @property
    def sensitivity(self) -> tuple[int, int]:
        """(found, all) of the items in which people see the finding."""
        return self._share("yes")

    @property
    def specificity(self) -> tuple[int, int]:
        """(let pass, all) of the items in which people do not."""
        return self._share("no")

    def _share(self, human: str) -> tuple[int, int]:
        counts = Counter(self.pairs)
        return counts[human, human], counts[human, "yes"] + counts[human, "no"]


def read_labelled(path: str | Path, columns: dict[str, str] | None = None) -> list[Labelled]:
    """A CSV with question, answer and label; PyRIT's own files and JailbreakBench's are taken as they are.

    Lines that begin with "#" before the header are passed over.

    Args:
        path: of the file.
        columns: which of its columns are `question`, `answer` and `label`, where their names are not known.

    Raises:
        JudgeError: no such file, a column is missing, or a label is neither yes nor no.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise JudgeError(f"{path} was to be read as human labels, but that failed: {error}.") from error
    while text.startswith("#"):
        text = text.partition("\n")[2]
    reader = csv.DictReader(io.StringIO(text, newline=""))
    found = {name: _column(path, name, reader.fieldnames or [], columns or {}) for name in _COLUMNS}
    rows = []
    for number, row in enumerate(reader, 1):
        said = str(row[found["label"]] or "").strip().lower()
        if said not in _YES | _NO:
            raise JudgeError(
                f"Row {number} of {path} has the label {said!r} in the column {found['label']}, which is "
                f"neither 1 nor 0: mend or remove that row."
            )
        exchange = Exchange(row[found["question"]] or "", row[found["answer"]] or "")
        rows.append(Labelled(exchange, said in _YES))
    if not rows:
        raise JudgeError(f"{path} has a header and no row: name a file with human labels.")
    return rows


def validate(
    judge: Judge, labelled: Sequence[Labelled], *, finding: Finding = "unsafe", batch_size: int = 8
) -> Validation:
    """Ask a judge about exchanges that people have labelled.

    Args:
        judge: of any kind.
        labelled: with labels that say whether the finding is there.
        finding: "unsafe", or "refusal": then the judge's class counts, and an empty answer is a refusal.
        batch_size: exchanges at a time.
    """
    said: dict[int, Judgement] = {}
    for batch in judge_all(judge, [row.exchange for row in labelled], batch_size):
        said.update(batch)
    pairs = tuple(
        ("yes" if row.positive else "no", "yes" if _finds(said[index], finding) else "no")
        for index, row in enumerate(labelled)
        if said[index].label != "unscored"
    )
    return Validation(judge.name, finding, pairs, len(labelled) - len(pairs))


def _finds(judgement: Judgement, finding: Finding) -> bool:
    if finding == "unsafe":
        return judgement.label == "unsafe"
    return judgement.response_class in ("refusal", "empty")


def _column(path: Path, name: str, header: Sequence[str], given: dict[str, str]) -> str:
    wanted = (given[name],) if name in given else _COLUMNS[name]
    for column in wanted:
        if column in header:
            return column
    raise JudgeError(
        f"{path} was to be read as human labels, but has no column for the {name} (looked for "
        f"{', '.join(wanted)}; found {', '.join(header) or 'none'}): name it with --{name}_column."
    )
