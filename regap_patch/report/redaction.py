"""What of a run's texts may be seen at once: harmful requests and answers are blurred or taken out."""

from __future__ import annotations

from typing import Literal, get_args

from regap_patch.errors import ReportError
from regap_patch.report.run_folder import Item

Redaction = Literal["blur", "remove", "none"]
REDACTIONS: tuple[Redaction, ...] = get_args(Redaction)


def check_redaction(name: str) -> Redaction:
    """The name, if it is one.

    Raises:
        ReportError: it is none.
    """
    for known in REDACTIONS:
        if name == known:
            return known
    raise ReportError(f"Redaction {name!r} is unknown: choose {', '.join(REDACTIONS)}.")


def hides_prompt(item: Item) -> bool:
    """Harmful requests are kept from sight."""
    return item.sample.kind == "harm"


def hides_answer(item: Item) -> bool:
    """So are answers that some judge calls unsafe, and to harmful requests those not surely safe."""
    labels = [verdict.label for verdict in item.verdicts.values()]
    if item.sample.kind == "harm":
        return not labels or any(label != "safe" for label in labels)
    return "unsafe" in labels


def shown(text: str, hidden: bool, redaction: Redaction) -> str:
    """The text, or that it was taken out."""
    return f"[redacted: {len(text)} characters]" if hidden and redaction == "remove" else text
