"""Evaluation: what a target is asked, in which picture's company, and what it says, kill after kill."""

from __future__ import annotations

from regap_patch.lazy import lazy_exports

_HOMES = {
    "Question": "target",
    "Reply": "target",
    "Decoding": "target",
    "Target": "target",
    "RunFolder": "folder",
    "Settings": "manifest",
    "Shard": "blocks",
    "Task": "tasks",
    "in_mode": "image_modes",
    "run_evaluation": "run",
    "check_parity": "parity",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
