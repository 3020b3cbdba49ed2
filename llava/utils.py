"""Names that scripts import from here."""

from __future__ import annotations

server_error_msg = "**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.**"


def disable_torch_init() -> None:
    """Does nothing: models are built without storage, so there is no initialisation to save."""


def pretty_print_semaphore(semaphore: object) -> str:
    """State of a worker's limit on concurrent requests, for a log line."""
    if semaphore is None:
        return "None"
    return f"Semaphore(value={semaphore._value}, locked={semaphore.locked()})"  # type: ignore[attr-defined]
