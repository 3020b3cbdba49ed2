"""The names of the losses and what each means, readable without torch (`--help` shows them).

The paper does not publish the exact formula of its surrogate. Every name here is our choice; none claims to
be the paper's.
"""

from __future__ import annotations

LOSSES_IN_WORDS: dict[str, str] = {
    "centroid_l2": "|mean v - mean t|, the distance between the mean image row and the mean text row",
    "centroid_sq": "|mean v - mean t|^2",
    "pairwise_l2": "mean over all pairs of |v_i - t_j|",
    "pairwise_sq": "mean over all pairs of |v_i - t_j|^2 = centroid_sq + both traces: it also shrinks the "
    "spread",
    "norm_match": "(mean |v_i| - mean |t_j|)^2, the norms alone",
    "off": "no loss; statistics are still recorded",
}
