"""One layer's term from the first 20, 50, 100 ... pairs: how far the number depends on how many were taken.

The term is biased upwards like 1 / pairs, so only equal numbers of pairs compare, and a curve that has not
flattened says that the number is not yet the population's.
"""

from __future__ import annotations

from collections.abc import Iterable

from regap_patch.errors import RowsError
from regap_patch.gap.clouds import Cloud, Rows
from regap_patch.gap.layer import LayerTerm, layer_term


def pairs_curve(
    image: Rows, text: Rows, pairs: Iterable[int], *, errors: bool = True, groups: int = 0
) -> dict[int, LayerTerm]:
    """A layer's term from the first pairs, for several numbers of them.

    Args:
        image: rows (n_i, D) of each sample.
        text: rows (m_i, D) of each sample, in the same order.
        pairs: how many pairs to take; each at least 2 (1 without errors) and at most as many as there are.
        errors: as `layer_term`.
        groups: as `layer_term`.

    Returns:
        The term for each number of pairs, ascending. Join those of one number with `combine`. Outlying rows
        are found anew for each. Cost: one term for each number.

    Raises:
        RowsError: for a number that cannot be had, and as `layer_term`.
    """
    clouds = (Cloud.of(image, "image rows"), Cloud.of(text, "text rows"))
    available = min(len(cloud.samples) for cloud in clouds)
    terms = {}
    for count in sorted(set(pairs)):
        if not 1 <= count <= available:
            raise RowsError(f"A curve was asked at {count} pairs, but there are {available}: ask for fewer.")
        first = [cloud.choose(range(count)) for cloud in clouds]
        terms[count] = layer_term(first[0], first[1], errors=errors, groups=groups)
    return terms
