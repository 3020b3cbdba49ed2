"""Which rows and positions of a generation a change of hidden states is for.

Axes: B batch, L positions of one pass, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch

from regap_patch.errors import DefenseError

if TYPE_CHECKING:
    from torch import Tensor

Positions = Literal["last_prefill", "all_prefill", "all_steps"]
POSITIONS: tuple[Positions, ...] = get_args(Positions)


class Placed:
    """A change of one layer's state at some rows and positions of one generation, for `layers.moved`.

    The first pass says how long the prompts are, which end together (padding is on the left). With a cache
    the passes after it hold new tokens alone, without one they hold all: both change the same positions.

    Args:
        change: (rows, positions, D) -> the same shape; the rows are those chosen, in their order.
        chosen: (B,) which rows change; all others, and all other positions, keep their bits.
        positions: `last_prefill` the prompt's last position, `all_prefill` all of the prompt's, `all_steps`
            these and each new token's.
    """

    def __init__(
        self, change: Callable[[Tensor], Tensor], chosen: Sequence[bool], positions: Positions
    ) -> None:
        self._change, self._positions = change, positions
        self._batch = len(chosen)
        self._rows = torch.tensor([row for row, changes in enumerate(chosen) if changes], dtype=torch.long)
        self._prompt, self._passes = 0, 0

    def __call__(self, state: Tensor) -> Tensor:
        """The state (B, L, D) of one pass; itself where nothing of it changes.

        A defence further in may run the batch several times side by side: then the rows repeat as well.

        Raises:
            DefenseError: rows that are no such batch.
        """
        times, rest = divmod(state.shape[0], self._batch)
        if rest or times == 0:
            raise DefenseError(
                f"A defence prepared {self._batch} rows, but the decoder runs {state.shape[0]}: ask for one "
                f"answer a prompt, without beams."
            )
        where = self._where(state.shape[1])
        if where.start >= where.stop or not len(self._rows):
            return state
        self._rows = self._rows.to(state.device)
        other = state.clone()
        for first in range(0, state.shape[0], self._batch):
            rows = self._rows + first
            other[rows, where] = self._change(state[rows, where]).to(state.dtype)
        return other

    def _where(self, length: int) -> slice:
        if not self._passes:
            self._prompt = length
        whole = length == self._prompt + self._passes
        self._passes += 1
        if self._positions == "all_steps":
            return slice(0, length)
        if not whole:
            return slice(0, 0)
        return slice(self._prompt - 1 if self._positions == "last_prefill" else 0, self._prompt)
