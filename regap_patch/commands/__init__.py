"""The larger commands of `regap`: their flags and what they print. The work is done in other rooms."""

from __future__ import annotations

from regap_patch.lazy import lazy_exports

_HOMES = {"add_mir": "mir", "add_gap": "gap", "add_eval": "eval"}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
