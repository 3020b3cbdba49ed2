"""One row of the table of hosts: the few facts in which model families differ.

Axes: B batch, L sequence as collated, S image slots, P rows in a slot, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regap_patch.errors import PatchStateError
from regap_patch.gap.rows import ModalityRows
from regap_patch.hosts.text import text_rows_mask


class ImageSlots(NamedTuple):
    """The projector's output, sorted by owner.

    Attributes:
        image: (S, P, D) rows with their graph.
        real: (S,) or (S, P) bool, False for rows that no sample shows: a dummy image, a cropped border.
        sample: (S,) int64 owner of each slot; None where slot s belongs to sample s.
    """

    image: Tensor
    real: Tensor
    sample: Tensor | None


@dataclass(frozen=True)
class Host:
    """A model family.

    Attributes:
        name: as it is written to `regap.json`.
        projector: attribute paths from the model without wrappers; the first that leads to a module is the
            projector.
        beside_lm: attribute paths of what is not the language model: all else may not train under the
            regulariser.
        images: names of the forward arguments that carry images.
        image_token: model -> the id that stands for an image, or for one of its tokens, in `input_ids`; None
            where images have no placeholder.
        slots: (model, forward arguments by name, projector output) -> which rows belong to which sample.
        model_types: values of `config.model_type` for which this row was written; empty for any. Families
            share attribute names and differ in what follows from them.
        plain_newline: whether a caption right after its image ends with a newline that is no word of it
            (LLaVA's `plain` template).
        text_only: whether the model answers text alone, too.
    """

    name: str
    projector: tuple[str, ...]
    beside_lm: tuple[str, ...]
    images: tuple[str, ...]
    image_token: Callable[[Any], int | None]
    slots: Callable[[Any, Mapping[str, Any], Tensor], ImageSlots]
    model_types: tuple[str, ...] = ()
    plain_newline: bool = False
    text_only: bool = True

    @property
    def looked_for(self) -> str:
        """What a model must have to be of this family, in words."""
        kinds = f" in a model of type {' or '.join(self.model_types)}" if self.model_types else ""
        return f"{self.name} looked for {' or '.join(self.projector)}{kinds}"

    def find_projector(self, model: nn.Module) -> nn.Module | None:
        """The projector of this model; None for another family, or where no path leads to a module."""
        if self.model_types and follow(model, "config.model_type") not in self.model_types:
            return None
        found = (follow(model, path) for path in self.projector)
        return next((module for module in found if isinstance(module, nn.Module)), None)

    def lm_parameters(self, model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters of the language model by name: all but the projector and `beside_lm`."""
        beside: set[int] = set()
        for path in (*self.projector, *self.beside_lm):
            found = follow(model, path)
            for part in found if isinstance(found, list) else [found]:
                if isinstance(part, nn.Module):
                    beside.update(id(parameter) for parameter in part.parameters())
                elif part is not None:
                    beside.add(id(part))
        return ((name, part) for name, part in model.named_parameters() if id(part) not in beside)

    def sees_images(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a forward pass was given images, so that the projector must have run."""
        given = [arguments.get(name) for name in self.images]
        return any(
            images is not None
            and (len(images) > 0 if torch.is_tensor(images) else any(image is not None for image in images))
            for images in given
        )

    def rows(
        self,
        model: Any,
        arguments: Mapping[str, Any],
        image_embeds: Tensor | None,
        text_mask: Tensor | None = None,
    ) -> ModalityRows:
        """Image rows and text rows of one forward pass.

        Args:
            model: the model without wrappers.
            arguments: what its forward got, by name; `input_ids` (B, L) and, without `text_mask`, `labels`
                (B, L).
            image_embeds: the projector's output with its graph; None where the projector did not run.
            text_mask: (B, L) bool, which ids are text rows; by default the supervised ones
                (`text_rows_mask`).

        Raises:
            PatchStateError: if there are no `input_ids`, or nothing says which of them are text.
        """
        ids, labels = arguments.get("input_ids"), arguments.get("labels")
        if ids is None:
            raise PatchStateError(
                "The gap needs the ids of the text, but this forward pass got no input_ids (inputs_embeds "
                "have none): pass input_ids, or leave training mode for this call."
            )
        if text_mask is None:
            if labels is None:
                raise PatchStateError(
                    "The gap counts supervised text, but this forward pass got no labels: pass labels, or "
                    "`text_mask=` to measuring()."
                )
            text_mask = text_rows_mask(
                ids,
                labels,
                arguments.get("attention_mask"),
                image_id=self.image_token(model),
                end_ids=end_ids(model.config),
                plain_newline=self.plain_newline,
            )
        text = embedded(model.get_input_embeddings(), ids.clamp(min=0))
        text_mask = text_mask.to(device=text.device, dtype=torch.bool)
        if image_embeds is None:
            nothing = text.new_zeros((ids.shape[0], 1, text.shape[-1]))
            return ModalityRows(nothing, nothing[..., 0].bool(), text, text_mask)
        slots = self.slots(model, arguments, image_embeds)
        mask = (slots.real if slots.real.dim() == 2 else slots.real[:, None]).expand(slots.image.shape[:2])
        return ModalityRows(slots.image, mask, text.to(slots.image.device), text_mask, slots.sample)


def follow(model: Any, path: str) -> Any:
    """The attribute at the end of a dotted path; None where it breaks off."""
    for name in path.split("."):
        model = getattr(model, name, None)
    return model


def embedded(embedding: nn.Module, ids: Tensor) -> Tensor:
    """Rows of the embedding, detached: (B, L) int64 -> (B, L, D).

    The module itself is called, so that ZeRO-3 gathers its weight; in evaluation mode, in which what trains
    on noisy embeddings (NEFTune) adds no noise and draws no random number.
    """
    training = [module for module in embedding.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            rows: Tensor = embedding(ids)
    finally:
        for module in training:
            module.training = True
    return rows.detach()


def end_ids(config: Any) -> tuple[int, ...]:
    """Ids of BOS and EOS in a model's config or in that of its language model: atypical rows."""
    ids: set[int] = set()
    for part in (config, getattr(config, "text_config", None)):
        for name in ("bos_token_id", "eos_token_id"):
            value = getattr(part, name, None)
            ids.update(value if isinstance(value, (list, tuple)) else () if value is None else (value,))
    return tuple(sorted(ids))
