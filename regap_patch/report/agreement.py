"""How far two judges, or a judge and a person, say the same of the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regap_patch.errors import ReportError
from regap_patch.report.bootstrap import RESAMPLES
from regap_patch.report.proportions import LEVEL, Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SAME = 1e-12  # kappas that differ by rounding alone


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cohen's kappa and what it was taken from.

    Attributes:
        kappa: None where both only ever say one and the same thing: then chance explains all of it.
        interval: percentile interval of resampled items; None with `kappa`, and where no resample differs
            (both always agree, or one only ever says one thing): no width would claim certainty.
        observed: share of items on which both say the same.
        labels: what is said, in the order of the table.
        table: rows the first, columns the second; counts of items.
    """

    kappa: float | None
    interval: Interval | None
    observed: float
    labels: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]

    @property
    def n(self) -> int:
        """Items."""
        return sum(map(sum, self.table))


def agreement(
    pairs: Sequence[tuple[str, str]], *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Agreement:
    """Cohen's (1960) kappa of (what the first says, what the second says) of each item.

    Raises:
        ReportError: there is no pair.
    """
    import numpy as np

    if not pairs:
        raise ReportError("No answer was scored by both, so they have no agreement: judge the same answers.")
    labels = tuple(sorted({label for pair in pairs for label in pair}))
    index = {label: number for number, label in enumerate(labels)}
    table = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for first, second in pairs:
        table[index[first], index[second]] += 1
    n = len(pairs)
    kappa = float(_kappas(table[None])[0])
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n, table.ravel() / n, size=resamples).reshape(resamples, *table.shape)
    resampled = _kappas(drawn)
    resampled = resampled[np.isfinite(resampled)]
    interval = None
    if np.isfinite(kappa) and resampled.size and np.ptp(resampled) > _SAME:
        tail = (1 - level) / 2
        interval = Interval(*map(float, np.quantile(resampled, [tail, 1 - tail])))
    return Agreement(
        kappa if np.isfinite(kappa) else None,
        interval,
        float(np.trace(table)) / n,
        labels,
        tuple(tuple(int(count) for count in row) for row in table),
    )


def _kappas(tables: NDArray[Any]) -> NDArray[np.float64]:
    """(R, c, c) tables -> (R,) kappas; NaN where chance alone agrees always."""
    import numpy as np

    shares = tables / tables.sum(axis=(1, 2), keepdims=True)
    observed = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(axis=2) * shares.sum(axis=1)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        kappas: NDArray[np.float64] = np.where(chance < 1 - 1e-12, (observed - chance) / (1 - chance), np.nan)
    return kappas
