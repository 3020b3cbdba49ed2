"""VLM-Guard: a state that points to harm is moved along the directions of harm in text (arXiv 2502.10486).

The directions are the first right singular vectors of "harmful minus harmless" states at the prompt's last
position, taken on text alone: of the aligned language model, or of the model's own text path. A state h whose
part along the first of them, V1, is positive is taken for harmful, and h + alpha (hV)V^T takes its place.

There is no published code, and what we read leaves these open, so each is a setting: the role of the part in
the span (`added` as above; `replaced` takes it away from every state first, and gives the harmful ones alpha
of it back), the number of directions, the layers and the positions. A singular vector has no sign: ours lie
on the side of the mean difference. Text alone is steered as well, where the gate opens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from regap_patch.defenses.directions import moved_along
from regap_patch.defenses.fit_files import Fit, read_fit
from regap_patch.defenses.positions import Placed, Positions
from regap_patch.defenses.protocol import Defense, FittedItem, Generate, Level, Model, Reply, Turn
from regap_patch.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from regap_patch.defenses.notes import Notes


@dataclass
class VlmGuard(Defense):
    """See the module's text.

    Attributes:
        directions: folder that `regap defense fit vlm_guard` has left.
        alpha: how far; 0 is off with `added`.
        rank: how many of the stored directions.
        form: added or replaced.
        layers: "all", or numbers from 1 and ranges: "10-31".
        positions: see `positions.Placed`.

    Raises:
        ConfigError: a rank below 1.
    """

    name: ClassVar[str] = "vlm_guard"
    level: ClassVar[Level] = "hidden"
    needs_layers: ClassVar[bool] = True
    source: ClassVar[str] = "arXiv:2502.10486, reimplemented: there is no published code"

    directions: Path
    alpha: float = 1.0
    rank: int = 5
    form: Literal["added", "replaced"] = "added"
    layers: str = "all"
    positions: Positions = "all_steps"
    _decoder: Any = field(default=None, init=False, repr=False)
    _stored: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"vlm_guard.rank is {self.rank}: at least one direction steers.")

    def fingerprint(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Settings, and hash of the directions.

        Raises:
            DefenseError: they are another model's or template's.
        """
        fit = self._fit()
        fit.check(target)
        settings = {name: getattr(self, name) for name in ("alpha", "rank", "form", "layers", "positions")}
        return {"name": self.name, **settings, "directions": fit.fingerprint}

    def fitted_on(self) -> Iterable[FittedItem]:
        """Both sides of its pairs."""
        return self._fit().fitted_on()

    def prepare(self, model: Model) -> None:
        """Find the layers and load the directions.

        Raises:
            DefenseError: directions for another number of layers.
            ConfigError: layers that there are not, or fewer directions than asked for.
        """
        from regap_patch.defenses.states import decoder_of, layer_numbers

        self._decoder = decoder_of(model)
        count = len(self._decoder.layers)
        numbers = layer_numbers(self.layers, count)
        stored = self._fit().tensors(count)["directions"]
        if self.rank > stored.shape[1]:
            raise ConfigError(
                f"vlm_guard.rank is {self.rank}, but {self.directions} holds {stored.shape[1]} directions: "
                f"ask for fewer, or fit with a larger --rank."
            )
        self._stored = {number: stored[number, : self.rank].to(model.module.device) for number in numbers}

    def around(self, turns: Sequence[Turn], generate: Generate, notes: Notes) -> list[Reply]:
        """A turn has fired where the gate opened at the newest position of a pass or more.

        Earlier positions of a prompt have gates of their own; padding is among them, so none is counted.
        """
        from regap_patch.defenses.states import moved

        if self.alpha == 0 and self.form == "added":
            return generate(turns)
        steered = {
            number: _Steered(directions, self.alpha, self.form == "replaced", len(turns))
            for number, directions in self._stored.items()
        }
        everywhere = [True] * len(turns)
        changes = {number: Placed(change, everywhere, self.positions) for number, change in steered.items()}
        with moved(self._decoder, changes):
            replies = generate(turns)
        opened = [change.opened() for change in steered.values()]
        for turn, gates in zip(turns, zip(*opened, strict=True), strict=True):
            if sum(gates) or self.form == "replaced":
                notes.fired(turn)
                notes.spent([turn], gates=sum(gates))
        return replies

    def close(self) -> None:
        """Keep nothing of the model."""
        self._decoder = None
        self._stored = {}

    def _fit(self) -> Fit:
        return read_fit(self.directions, self.name)


class _Steered:
    """The change of one layer's states, which counts where its gate was open."""

    def __init__(self, directions: Tensor, alpha: float, replace: bool, rows: int) -> None:
        self._directions, self._alpha, self._replace = directions, alpha, replace
        self._rows = rows
        self._opened: list[Tensor] = []

    def __call__(self, rows: Tensor) -> Tensor:
        directions = self._directions.to(rows.device)
        self._opened.append(rows[:, -1].float() @ directions[0] > 0)
        return moved_along(rows, directions, self._alpha, replace=self._replace)

    def opened(self) -> list[int]:
        """Passes in which each row's gate was open; those of rows side by side count together."""
        if not self._opened:
            return [0] * self._rows
        counts: list[int] = torch.stack(self._opened).sum(0).tolist()
        return counts
