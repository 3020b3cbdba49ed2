"""Forward passes over image-text pairs: the gap at the language model's input, and MIR at every layer."""

from __future__ import annotations

from regap_patch.lazy import lazy_exports

_HOMES = {
    "measure_mir": "mir",
    "MirSettings": "mir",
    "MirReport": "mir",
    "measure_gap": "gap",
    "GapReport": "gap",
    "gap_of_pair": "gap",
    "centroids_by_layer": "centroids",
    "LayerDistance": "centroids",
    "Pair": "pairs",
    "PairSet": "pairs",
    "choose_pairs": "pairs",
    "compare_mir": "compare",
    "load_checkpoint": "checkpoints",
    "plan_mir": "plan",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
