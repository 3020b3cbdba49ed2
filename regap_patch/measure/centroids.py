"""How far apart the middles of image and text rows are in one pair, layer by layer.

Axes: L rows of the language model's input, D its width, K layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from regap_patch.gap.precision import float64
from regap_patch.hosts.decoder import find_decoder
from regap_patch.hosts.host import Host
from regap_patch.hosts.table import find_host, unwrapped
from regap_patch.measure.capture import capture
from regap_patch.measure.decoder import evaluating, walk_layers


@dataclass(frozen=True, slots=True)
class LayerDistance:
    """One hidden state of a pair.

    Attributes:
        layer: 0 is the language model's input, K what its decoder puts out.
        centroid_l2: |mean of image rows - mean of text rows|.
        text_norm: mean |text row|: states grow from layer to layer, and distances with them.
    """

    layer: int
    centroid_l2: float
    text_norm: float

    @property
    def relative(self) -> float:
        """The distance in units of a text row's length."""
        return self.centroid_l2 / self.text_norm if self.text_norm else 0.0


def centroids_by_layer(
    model: nn.Module, arguments: Mapping[str, Any], *, name: str = "the pair", host: Host | None = None
) -> list[LayerDistance]:
    """The distances of layers 0 to K, by one forward pass.

    Args:
        model: of any known host; its mode is as before afterwards.
        arguments: of its forward: one sample, not padded.
        name: of the pair, for messages.
        host: the model family, where it is none of the table's.

    Raises:
        UnknownHostError: no known host fits the model.
        MeasureError: no image, no text behind it, or rows cut off.
    """
    host, projector = find_host(model, host)
    base: Any = unwrapped(model)
    decoder = find_decoder(host, base)
    found: list[LayerDistance] = []
    with evaluating(base):
        pair = capture(base, host, projector, decoder, arguments, name)

        def see(layer: int, hidden: Tensor) -> None:
            image, text = map(float64, pair.rows(hidden))
            distance = float((image.mean(0) - text.mean(0)).norm())
            found.append(LayerDistance(layer, distance, float(text.norm(dim=1).mean())))

        walk_layers(decoder, base, arguments, see)
    return found
