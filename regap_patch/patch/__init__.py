"""A patch is a value with a lifetime: made by one call, visible in its `repr`, ended by `remove()`."""

from __future__ import annotations

from regap_patch.lazy import lazy_exports

_HOMES = {
    "apply_regap": "apply",
    "find_patch": "apply",
    "ReGapConfig": "config",
    "GapPatch": "handle",
    "GapRecord": "record",
    "StepMeans": "totals",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
