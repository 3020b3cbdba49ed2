"""ReGap (arXiv 2505.24208): shrink the gap between image and text tokens while the projector is pretrained.

`apply_regap(model)` adds the regulariser to a LLaVA-style model; any training loop then trains with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regap_patch.version import __version__

if TYPE_CHECKING:
    from regap_patch.patch.apply import apply_regap, find_patch
    from regap_patch.patch.config import ReGapConfig
    from regap_patch.patch.handle import GapPatch

__all__ = ["apply_regap", "find_patch", "ReGapConfig", "GapPatch", "__version__"]

_HOMES = {
    "apply_regap": "regap_patch.patch.apply",
    "find_patch": "regap_patch.patch.apply",
    "ReGapConfig": "regap_patch.patch.config",
    "GapPatch": "regap_patch.patch.handle",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
