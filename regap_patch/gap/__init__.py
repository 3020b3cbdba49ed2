"""The mathematics of the modality gap: pure torch, no files, no hooks, no collectives."""

from __future__ import annotations

from regap_patch.lazy import lazy_exports

_HOMES = {
    "ModalityRows": "rows",
    "GapStats": "statistics",
    "gap_statistics": "statistics",
    "LOSSES": "losses",
    "gap_loss": "losses",
    "reduce_like_lm": "reduction",
    "supervised_targets": "reduction",
    "Calibration": "calibration",
    "LOSSES_IN_WORDS": "catalog",
    "Cloud": "clouds",
    "Moments": "moments",
    "MomentSums": "moments",
    "outlier_mask": "outliers",
    "lower_median": "outliers",
    "frechet_distance": "frechet",
    "LayerTerm": "layer",
    "layer_term": "layer",
    "term_from_moments": "layer",
    "reference_term": "reference_script",
    "COMPAT_IN_WORDS": "reference_script",
    "mean_pairwise_l2": "pairwise",
    "pairs_curve": "curve",
    "MirResult": "integration_rate",
    "MirDifference": "integration_rate",
    "mir": "integration_rate",
    "combine": "integration_rate",
    "mir_difference": "integration_rate",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
