"""ReGap (arXiv 2505.24208): shrink the gap between image and text tokens while the projector is pretrained.

`apply_regap(model)` adds the regulariser to a LLaVA-style model; any training loop then trains with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regap_patch.lazy import lazy_exports
from regap_patch.version import __version__

if TYPE_CHECKING:
    from regap_patch.patch.apply import apply_regap, find_patch
    from regap_patch.patch.config import ReGapConfig
    from regap_patch.patch.handle import GapPatch

__all__ = ["apply_regap", "find_patch", "ReGapConfig", "GapPatch", "__version__"]

_HOMES = {
    "apply_regap": "patch.apply",
    "find_patch": "patch.apply",
    "ReGapConfig": "patch.config",
    "GapPatch": "patch.handle",
}
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
