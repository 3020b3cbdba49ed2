"""Defences at inference: one protocol, stackable, around any target that has a text-only forward."""

from __future__ import annotations

from regap_patch.lazy import lazy_exports

_HOMES = {
    "Defense": "protocol",
    "FittedItem": "protocol",
    "Generate": "protocol",
    "Model": "protocol",
    "Reply": "protocol",
    "Turn": "protocol",
    "Notes": "notes",
    "Stack": "stack",
    "make_stack": "table",
    "find_defense": "table",
    "ENTRY_POINTS": "table",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
