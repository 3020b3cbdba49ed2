"""CMRM: hidden states are moved back to where the text alone would have put them (arXiv 2410.09047).

At each chosen layer alpha times the mean difference "text alone minus text beside a picture that shows
nothing" is added. There is no code by the authors, and what we read about the method leaves these open, so
each is a setting:

- the vector of a data set is the mean over anchors, or their first principal component with the mean's sign
  and length; that of a sample is measured on its own prompt, by two more prefills;
- which layers: all by default. A layer's shift is in the next one's input already, so shifts of several
  layers add up along the residual stream;
- which positions: all, at every step, by default, as in the independent reproduction;
- which picture shows nothing: blank by default.

The vectors are added (text minus picture); one of the published equations has the other sign. Meant for
harmless pictures beside harmful words, not for words drawn into a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from regap_patch.defenses.fit_files import Fit, read_fit
from regap_patch.defenses.placeholder import QUESTION, placeholder_of
from regap_patch.defenses.positions import Placed, Positions
from regap_patch.defenses.protocol import Defense, FittedItem, Generate, Level, Model, Reply, Turn
from regap_patch.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from regap_patch.defenses.notes import Notes

Kind = Literal["blank", "black", "grey", "noise"]


@dataclass
class Cmrm(Defense):
    """See the module's text.

    Attributes:
        vectors: folder that `regap defense fit cmrm` has left; None with `of="sample"`.
        of: whose vector: the data set's, or each sample's own.
        vector: of a data set: mean or pca.
        alpha: how far; 0 is off.
        layers: "all", or numbers from 1 and ranges: "10-31".
        positions: see `positions.Placed`.
        image: with `of="sample"`, the picture that shows nothing; a folder of vectors knows its own.

    Raises:
        ConfigError: a data set's vector without a folder, or a folder that nobody would read.
    """

    name: ClassVar[str] = "cmrm"
    level: ClassVar[Level] = "hidden"
    needs_layers: ClassVar[bool] = True
    cost: ClassVar[str] = "1 generation; of=sample: 2 prefills more"
    source: ClassVar[str] = "arXiv:2410.09047, reimplemented: there is no published code"

    vectors: Path | None = None
    of: Literal["dataset", "sample"] = "dataset"
    vector: Literal["mean", "pca"] = "mean"
    alpha: float = 1.0
    layers: str = "all"
    positions: Positions = "all_steps"
    image: Kind = "blank"
    _model: Any = field(default=None, init=False, repr=False)
    _decoder: Any = field(default=None, init=False, repr=False)
    _numbers: list[int] = field(default_factory=list, init=False, repr=False)
    _stored: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.of == "dataset" and self.vectors is None:
            raise ConfigError(
                "The defence cmrm was asked for without vectors: fit them with `regap defense fit cmrm` and "
                "give cmrm.vectors=FOLDER, or take each sample's own with cmrm.of=sample."
            )
        if self.of == "sample" and self.vectors is not None:
            raise ConfigError(
                f"The defence cmrm was given vectors={self.vectors} and of=sample, but a sample's own vector "
                f"is measured and not read: leave one of the two out."
            )

    def fingerprint(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Settings, and hash and picture of the vectors.

        Raises:
            DefenseError: the vectors are another model's or template's.
            ConfigError: another meaningless picture was asked for than they were fitted with.
        """
        names = ("of", "vector", "alpha", "layers", "positions", "image")
        made = {"name": self.name, **{name: getattr(self, name) for name in names}, "vectors": None}
        fit = self._fit()
        if fit is not None:
            fit.check(target)
            fitted = fit.about["image"]
            if self.image not in (Cmrm.image, fitted):
                raise ConfigError(
                    f"cmrm.image is {self.image}, but {self.vectors} was fitted with {fitted}: leave it out, "
                    f"or fit with --image {self.image}."
                )
            made |= {"vectors": fit.fingerprint, "image": fitted}
        return made

    def fitted_on(self) -> Iterable[FittedItem]:
        """The anchors of the vectors."""
        fit = self._fit()
        return [] if fit is None else fit.fitted_on()

    def prepare(self, model: Model) -> None:
        """Find the layers and load the vectors.

        Raises:
            DefenseError: vectors of another number of layers, or a template that says more beside a picture.
            ConfigError: layers that there are not.
        """
        from regap_patch.defenses.states import decoder_of, layer_numbers

        self._model, self._decoder = model, decoder_of(model)
        count = len(self._decoder.layers)
        self._numbers = layer_numbers(self.layers, count)
        placeholder_of(model, Turn(0, QUESTION, QUESTION, b""))
        fit = self._fit()
        if fit is not None:
            self._stored = fit.tensors(count)[self.vector].to(model.module.device)

    def around(self, turns: Sequence[Turn], generate: Generate, notes: Notes) -> list[Reply]:
        """Turns without a picture keep every bit."""
        from regap_patch.defenses.states import moved

        seeing = [turn for turn in turns if turn.picture is not None]
        if not seeing or self.alpha == 0:
            return generate(turns)
        vectors = self._of_samples(seeing, notes) if self.of == "sample" else self._stored[None]
        for turn in seeing:
            notes.fired(turn)
        chosen = [turn.picture is not None for turn in turns]
        changes = {
            number: Placed(partial(_add, self.alpha * vectors[:, number, None]), chosen, self.positions)
            for number in self._numbers
        }
        with moved(self._decoder, changes):
            return generate(turns)

    def close(self) -> None:
        """Keep nothing of the model."""
        self._model = self._decoder = self._stored = None

    def _of_samples(self, seeing: Sequence[Turn], notes: Notes) -> Tensor:
        notes.spent(seeing, prefills=2)
        return differences(self._model, self._decoder, seeing, self.image)

    def _fit(self) -> Fit | None:
        return None if self.vectors is None else read_fit(self.vectors, self.name)


def differences(model: Model, decoder: Any, turns: Sequence[Turn], image: str) -> Tensor:
    """States of each turn's words alone minus those of its words beside a picture that shows nothing.

    Args:
        model: loaded.
        decoder: of the model.
        turns: of pictures only the size counts.
        image: blank, black, grey or noise.

    Returns:
        (B, K, D) float32, of the prompts' last position.
    """
    from regap_patch.defenses.states import last_states

    alone = last_states(model, decoder, [turn.showing(None) for turn in turns])
    beside = [turn.showing(model.meaningless(turn, image)) for turn in turns]
    return alone - last_states(model, decoder, beside)


def _add(shift: Tensor, rows: Tensor) -> Tensor:
    return rows.float() + shift.to(rows.device)
