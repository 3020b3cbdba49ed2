"""The table of hosts as the tests see it: which tiny model is held against which name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tests.contract import tiny_hosts as tiny
from tests.contract.host_samples import EOS, IMG, NEWLINE, Samples


@dataclass(frozen=True)
class Row:
    """A host as the tests see it.

    Attributes:
        name: of the row in conformance.json.
        host: the name that the patch must give it.
        projector: its path in the model.
        build: tiny assets -> the model in training mode, weights as made.
        collate: (samples, seed) -> forward arguments.
        image_rows: (model, forward arguments, number of the image) -> (P, D), what the language model sees.
        lora: regular expression of modules that LoRA adapts.
        dummies: whether a text-only sample brings an image that nobody sees.
        plain_newline: whether the newline that ends a caption right after its image is no word.
        ids: what `generate` calls `input_ids`.
    """

    name: str
    host: str
    projector: str
    build: Callable[[Any], Any]
    collate: Callable[[Samples, int], dict[str, Tensor]]
    image_rows: Callable[[Any, dict[str, Tensor], int], Tensor]
    lora: str
    dummies: bool = False
    plain_newline: bool = False
    ids: str = "input_ids"

    def clouds(
        self, model: Any, samples: Samples, data: dict[str, Tensor], *, graph: bool = False
    ) -> list[Any]:
        """Image rows and text rows of each sample in float64; None where one of them is missing."""
        table = model.get_input_embeddings().weight.detach().double()
        found, image = [], 0
        for prompt, answer in samples:
            shown = prompt.count(IMG)
            with torch.set_grad_enabled(graph):
                images = [self.image_rows(model, data, image + i).double() for i in range(shown)]
            image += max(shown, 1) if self.dummies else shown
            words = [word for word in answer if word != EOS]
            if self.plain_newline and words[-1] == NEWLINE:
                words.pop()
            found.append((torch.cat(images), table[words]) if shown else None)
        return found


LLAVA = Row(
    name="llava",
    host="llava",
    projector="model.mm_projector",
    build=tiny.build_llava,
    collate=tiny.collate_llava,
    image_rows=tiny.llava_rows,
    lora=r"model\.layers.*q_proj",
    dummies=True,
    plain_newline=True,
    ids="inputs",
)
HF_LLAVA = Row(
    name="hf_llava",
    host="hf_llava",
    projector="model.multi_modal_projector",
    build=tiny.build_hf_llava,
    collate=tiny.collate_hf_llava,
    image_rows=tiny.hf_llava_rows,
    lora=r".*language_model.*q_proj",
)
LLAVA_NEXT = replace(
    HF_LLAVA,
    name="llava_next",
    host="llava_next",
    build=tiny.build_llava_next,
    collate=tiny.collate_llava_next,
    image_rows=tiny.llava_next_rows,
)
BLIP_2 = replace(
    HF_LLAVA,
    name="blip_2",
    host="blip_2",
    projector="language_projection",
    build=tiny.build_blip,
    collate=tiny.collate_blip,
    image_rows=tiny.blip_rows,
)
INSTRUCT_BLIP = replace(
    BLIP_2,
    name="instruct_blip",
    host="instruct_blip",
    build=tiny.build_instruct_blip,
    collate=tiny.collate_instruct_blip,
)
ROWS = {
    row.name: row
    for row in (
        LLAVA,
        HF_LLAVA,
        LLAVA_NEXT,
        BLIP_2,
        INSTRUCT_BLIP,
        replace(LLAVA, name="upstream_llava"),
        replace(HF_LLAVA, name="hf_llava_437", projector="multi_modal_projector"),
        replace(BLIP_2, name="blip_2_437"),
    )
}
