"""All rows of one modality at one layer, sample by sample, read in blocks and never copied as a whole.

Axes: N rows, D width, m samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, Union

import torch
from torch import Tensor

from regap_patch.errors import RowsError
from regap_patch.gap.precision import float64, on_a_device_with_float64

NORM_ROWS = 256  # rows whose norms are taken at once: their float64 copy stays in the cache

Rows: TypeAlias = Union[Tensor, Sequence[Tensor], "Cloud"]


@dataclass(frozen=True)
class Cloud:
    """Rows of one modality.

    Attributes:
        samples: rows of each sample, (n_i, D) floating, any precision; views are welcome.
        name: how a message calls them ("image rows of layer 3").
        paired: whether `samples` are samples; False where one tensor came without boundaries.
    """

    samples: tuple[Tensor, ...]
    name: str = "rows"
    paired: bool = True

    @classmethod
    def of(cls, rows: Rows, name: str = "rows") -> Cloud:
        """One tensor (N, D) without boundaries, a sequence of (n_i, D), or a cloud as it is.

        Raises:
            RowsError: for no rows at all, a sample without rows, or rows that are not (n, D) of one width.
        """
        if isinstance(rows, Cloud):
            return rows
        paired = not isinstance(rows, Tensor)
        samples = (rows,) if isinstance(rows, Tensor) else tuple(rows)
        if not samples:
            raise RowsError(f"A distance was asked of {name}, but there are none: give two rows or more.")
        width = samples[0].shape[-1] if samples[0].dim() else 0
        for index, sample in enumerate(samples):
            place = f" of sample {index}" if paired else ""
            found = f"{tuple(sample.shape)} {sample.dtype}"
            if sample.dim() != 2 or sample.shape[1] != width or not width or not sample.is_floating_point():
                raise RowsError(
                    f"The {name}{place} must be floating (n, D) of one width, but are {found}.",
                    index if paired else None,
                )
            if paired and not len(sample):
                raise RowsError(f"The {name}{place} are none: leave the sample out or give it rows.", index)
        cloud = cls(tuple(on_a_device_with_float64(sample.detach()) for sample in samples), name, paired)
        if cloud.count < 2:
            raise RowsError(f"A distance needs two {name} or more, but there is {cloud.count}: give more.")
        return cloud

    @classmethod
    def split(cls, rows: Tensor, lengths: Sequence[int], name: str = "rows") -> Cloud:
        """Rows (N, D) of consecutive samples, `lengths[i]` for sample i.

        Raises:
            RowsError: where the lengths do not add up to N, and as `of`.
        """
        if sum(lengths) != len(rows):
            raise RowsError(f"The lengths add up to {sum(lengths)}, but there are {len(rows)} {name}.")
        return cls.of(torch.split_with_sizes(rows, list(lengths)), name)

    @property
    def count(self) -> int:
        """N."""
        return sum(sample.shape[0] for sample in self.samples)

    @property
    def width(self) -> int:
        """D."""
        return int(self.samples[0].shape[1])

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.samples[0].device

    @property
    def lengths(self) -> list[int]:
        """Rows of each sample: m integers."""
        return [sample.shape[0] for sample in self.samples]

    @property
    def working_dtype(self) -> torch.dtype:
        """Float64 for float64 rows, float32 for all others: half precision is exact in float32."""
        wide = any(sample.dtype == torch.float64 for sample in self.samples)
        return torch.float64 if wide else torch.float32

    def choose(self, samples: Iterable[int]) -> Cloud:
        """The cloud of these samples alone, in this order; nothing is copied."""
        return Cloud(tuple(self.samples[index] for index in samples), self.name, self.paired)

    def blocks(self, size: int) -> Iterator[Tensor]:
        """All rows in order, (size, D) at a time, the last block shorter.

        Blocks run across samples, so where samples begin changes no sum, not even in its last bit.
        """
        held: list[Tensor] = []
        count = 0
        for sample in self.samples:
            start = 0
            while start < sample.shape[0]:
                piece = sample[start : start + size - count]
                held.append(piece)
                count += piece.shape[0]
                start += piece.shape[0]
                if count == size:
                    yield torch.cat(held) if len(held) > 1 else held[0]
                    held, count = [], 0
        if held:
            yield torch.cat(held) if len(held) > 1 else held[0]

    def row_norms(self) -> Tensor:
        """|x_j|: (N,) float64.

        Raises:
            RowsError: for NaN or infinity, with the sample and the row.
        """
        norms = torch.cat([_norms(block) for block in self.blocks(NORM_ROWS)])
        wrong = (~norms.isfinite()).nonzero()
        if not len(wrong):
            return norms
        row, index = int(wrong[0]), 0
        while row >= len(self.samples[index]):
            row, index = row - len(self.samples[index]), index + 1
        place = f"sample {index}, row {row}" if self.paired else f"row {row}"
        raise RowsError(
            f"The {self.name} must be finite, but {place} holds NaN or infinity ({len(wrong)} rows in all): "
            "look for the overflow upstream, or load the model in float32 or bfloat16.",
            index if self.paired else None,
        )

    def columns(self, start: int, stop: int) -> Tensor:
        """Columns start to stop of all rows, contiguous along the rows: (stop - start, N)."""
        return torch.cat([sample[:, start:stop] for sample in self.samples]).t().contiguous()


def _norms(block: Tensor) -> Tensor:
    """In float64: squares of bfloat16 may overflow float32."""
    norms: Tensor = torch.linalg.vector_norm(float64(block), dim=1)
    return norms
