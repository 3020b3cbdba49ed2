"""A model of LLaVA's shape from torch alone: tower, projector, embeddings, a mixing layer, head and loss."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, VISION, VOCABULARY, PATCHES = 6, 4, 23, 3
IMAGE, BOS, EOS, NEWLINE = -200, 1, 2, 13


class ToyDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.vision_tower = nn.Linear(VISION, VISION)
        self.mm_projector = nn.Sequential(nn.Linear(VISION, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.mix = nn.Linear(WIDTH, WIDTH)


class ToyLlava(nn.Module):
    """Image rows replace the placeholder; a row without one owns a dummy image. Padding is left in place."""

    def __init__(self, *, tuples: bool = False) -> None:
        super().__init__()
        self.model = ToyDecoder()
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.config = SimpleNamespace(bos_token_id=BOS, eos_token_id=EOS, is_encoder_decoder=False)
        self.tuples = tuples

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        images: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if inputs_embeds is None:
            inputs_embeds, labels = self._splice(input_ids, labels, images)
        context = inputs_embeds.cumsum(1) / torch.arange(1, inputs_embeds.shape[1] + 1)[:, None]
        logits = self.lm_head(self.model.mix(context).tanh())
        loss = None
        if labels is not None:
            items = kwargs.get("num_items_in_batch")
            loss = nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1),
                labels[:, 1:].flatten(),
                ignore_index=-100,
                reduction="mean" if items is None else "sum",
            )
            loss = loss if items is None else loss / items
        if self.tuples:
            return (logits,) if loss is None else (loss, logits)
        return OrderedDict(loss=loss, logits=logits) if loss is not None else OrderedDict(logits=logits)

    def _splice(self, ids: Tensor, labels: Tensor | None, images: Any) -> tuple[Tensor, Tensor | None]:
        words = self.model.embed_tokens(ids.clamp(min=0))
        if images is None:
            return words, labels
        pixels = (
            images
            if torch.is_tensor(images)
            else torch.cat([tile.reshape(-1, *tile.shape[-3:]) for tile in images])
        )
        patches = pixels.flatten(2)[..., : PATCHES * VISION // pixels.shape[1]].reshape(
            len(pixels), PATCHES, VISION
        )
        features = self.model.mm_projector(self.model.vision_tower(patches))
        rows, targets, slot = [], [], 0
        for index, row in enumerate(ids.tolist()):
            parts, marks = [], []
            for position, word in enumerate(row):
                if word == IMAGE:
                    parts.append(features[slot])
                    marks += [-100] * PATCHES
                    slot += 1
                else:
                    parts.append(words[index, position][None])
                    marks.append(-100 if labels is None else int(labels[index, position]))
            slot += IMAGE not in row
            rows.append(torch.cat([*parts, features.sum() * 0 * words.new_zeros(0, WIDTH)]))
            targets.append(torch.tensor(marks))
        pad = nn.utils.rnn.pad_sequence
        return pad(rows, batch_first=True), pad(targets, batch_first=True, padding_value=-100)


def toy(seed: int = 0, *, tuples: bool = False, frozen: bool = True) -> ToyLlava:
    """In training mode; with `frozen` only the projector trains, as in stage 1."""
    torch.manual_seed(seed)
    model = ToyLlava(tuples=tuples)
    model.model.embed_tokens.weight.data *= 0.2  # words are small beside image rows, as in a real LLaVA
    if frozen:
        model.requires_grad_(False)
        model.model.mm_projector.requires_grad_(True)
    return model.train()


def batch(seed: int = 0, *, size: int = 4, kind: str = "plain") -> dict[str, Any]:
    """Ragged captions (`plain`), or one row each of a text-only, an image and a two-image turn (`mixed`)."""
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> list[int]:
        return torch.randint(3, 13, (count,), generator=generator).tolist()

    rows, labels = [], []
    for index in range(size):
        said = words(2 + (index + seed) % 4)
        if kind == "plain":
            head, tail = [BOS, IMAGE], [*said, NEWLINE]
        else:
            head = [BOS, *words(2), *[IMAGE] * (index % 3), *words(1)]
            tail = [*said, EOS]
        rows.append(head + tail)
        labels.append([-100] * len(head) + tail)
    length = max(map(len, rows))
    slots = sum(max(row.count(IMAGE), 1) for row in rows)
    return {
        "input_ids": torch.tensor([row + [0] * (length - len(row)) for row in rows]),
        "labels": torch.tensor([row + [-100] * (length - len(row)) for row in labels]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows]),
        "images": torch.randn(slots, 1, 4, 4, generator=generator),
    }
