"""The patch inside somebody's training script: a launcher, a callback, and what they leave behind."""

from __future__ import annotations

from regap_patch.lazy import lazy_exports

_HOMES = {"ReGapCallback": "callback", "SIDECAR": "sidecar", "read_sidecar": "sidecar"}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
