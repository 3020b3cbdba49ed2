"""Put image features where their placeholders stand: one integer plan a batch, one buffer, written once.

The plan is made on the host from one copy of the placeholder positions; the tensors of width D are touched by
two indexed writes in the forward pass and two indexed reads in the backward pass, for any number of rows.
Knows tensors only: no model, no tokenizer, no configuration.

Axes: B rows, L ids of a row, T positions of a row after the splice, N kept text ids of the batch, S rows of
image features of the batch (all images one after another), M of these that land in it, D width of the LM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX


class SplicePlan(NamedTuple):
    """Where every embedding of a batch goes. Targets index the flat (B*T) buffer."""

    text_source: Tensor
    """(N,) int64: flat positions in `input_ids` of the text that is kept."""
    text_target: Tensor
    """(N,) int64."""
    image_source: Tensor | None
    """(M,) int64: rows of the image features; None when all S of them are used in their order."""
    image_target: Tensor
    """(M,) int64."""
    starts: Tensor
    """(B,) int64: position of a row's first real token; 0 unless padded on the left."""
    ends: Tensor
    """(B,) int64: one past the position of a row's last real token."""
    length: int
    """T."""
    padded: bool
    """True when some row is shorter than T."""
    cut_rows: int
    """Rows that were longer than `max_length` and lost their end."""

    def attention_mask(self) -> Tensor:
        """(B, T) bool: True at real tokens."""
        position = torch.arange(self.length, device=self.starts.device)
        return (position >= self.starts[:, None]) & (position < self.ends[:, None])

    def position_ids(self) -> Tensor:
        """(B, T) int64: counting from 0 at each row's first real token, 0 at padding."""
        position = torch.arange(self.length, device=self.starts.device) - self.starts[:, None]
        return position.masked_fill(~self.attention_mask(), 0)


def plan_splice(
    input_ids: Tensor,
    slot_lengths: Sequence[int],
    attention_mask: Tensor | None = None,
    *,
    max_length: int | None = None,
    padding_side: str = "right",
) -> SplicePlan:
    """Decide where each text id and each row of image features goes.

    A row uses one slot (one image) per placeholder, in order; a row without placeholders uses up one slot
    too, whose features appear nowhere. Positions where `attention_mask` is 0 are dropped, whatever their id.
    Costs one copy from the device to the host and one back per batch.

    Args:
        input_ids: (B, L) int64, `IMAGE_TOKEN_INDEX` where an image belongs.
        slot_lengths: feature rows of each slot, in batch order; they sum to S. 0 for a slot without an image.
        attention_mask: (B, L), nonzero at real ids; None means that all are real.
        max_length: rows are cut to this many positions, from the right, within an image if need be.
        padding_side: "left", or anything else for right.

    Raises:
        ValueError: the batch needs another number of slots than there are.
    """
    is_image = input_ids == IMAGE_TOKEN_INDEX
    keep = torch.ones_like(is_image) if attention_mask is None else attention_mask.bool()
    kind = (keep.to(torch.int8) * (1 + is_image.to(torch.int8))).cpu()  # 0 dropped, 1 text, 2 image
    is_text, is_image = kind == 1, kind == 2

    lengths = torch.tensor(slot_lengths, dtype=torch.int64)
    slot = _assign_slots(is_image, lengths)
    width = is_text.long()
    width[is_image] = lengths[slot]
    row_lengths = width.sum(1)
    limit = torch.iinfo(torch.int64).max if max_length is None else max_length
    kept_lengths = row_lengths.clamp(max=limit)
    length = int(kept_lengths.max()) if kept_lengths.numel() else 0
    starts = length - kept_lengths if padding_side == "left" else torch.zeros_like(kept_lengths)

    offset = width.cumsum(1) - width
    target = offset + (starts + torch.arange(len(starts)) * length)[:, None]
    is_text &= offset < limit
    image_source, image_target = _expand(
        first=(lengths.cumsum(0) - lengths)[slot],
        target=target[is_image],
        count=lengths[slot].minimum((limit - offset[is_image]).clamp(min=0)),
    )
    in_order = len(image_source) == sum(slot_lengths)
    device = input_ids.device
    return SplicePlan(
        text_source=is_text.flatten().nonzero().flatten().to(device),
        text_target=target[is_text].to(device),
        image_source=None if in_order else image_source.to(device),
        image_target=image_target.to(device),
        starts=starts.to(device),
        ends=(starts + kept_lengths).to(device),
        length=length,
        padded=bool((kept_lengths < length).any()),
        cut_rows=int((row_lengths > limit).sum()),
    )


def splice_embeddings(plan: SplicePlan, text_embeds: Tensor, image_features: Tensor) -> Tensor:
    """Write text embeddings and image features into one new tensor.

    Feature rows that the plan does not use get a zero gradient, so their producer stays in the graph on every
    rank.

    Args:
        plan: of the batch.
        text_embeds: (N, D), embeddings of `input_ids.flatten()[plan.text_source]`; the result has its dtype
            and device.
        image_features: (S, D), of any dtype and device: of a model over several GPUs, the projector is on
            another one than the embeddings.

    Returns:
        (B, T, D); zeros at padding.
    """
    flat = _Splice.apply(
        text_embeds,
        image_features.to(text_embeds),
        plan.text_target,
        plan.image_source,
        plan.image_target,
        len(plan.starts) * plan.length,
        plan.padded,
    )
    return flat.view(len(plan.starts), plan.length, text_embeds.shape[-1])


def splice_labels(plan: SplicePlan, labels: Tensor) -> Tensor:
    """Move labels (B, L) to their new positions: (B, T), `IGNORE_INDEX` at images and padding."""
    spliced = labels.new_full((len(plan.starts) * plan.length,), IGNORE_INDEX)
    spliced[plan.text_target] = labels.flatten()[plan.text_source]
    return spliced.view(len(plan.starts), plan.length)


class _Splice(torch.autograd.Function):
    """Two indexed writes forwards, two reads backwards; plain in-place writes would clone the gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        text: Tensor,
        image: Tensor,
        text_target: Tensor,
        image_source: Tensor | None,
        image_target: Tensor,
        rows: int,
        padded: bool,
    ) -> Tensor:
        ctx.save_for_backward(text_target, image_source, image_target)
        ctx.image_rows = len(image)
        out = (text.new_zeros if padded else text.new_empty)(rows, text.shape[-1])
        out[text_target] = text
        out[image_target] = image if image_source is None else image.index_select(0, image_source)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        text_target, image_source, image_target = ctx.saved_tensors
        text_grad = grad.index_select(0, text_target) if ctx.needs_input_grad[0] else None
        image_grad = None
        if ctx.needs_input_grad[1]:
            image_grad = grad.index_select(0, image_target)
            if image_source is not None:  # each feature row lands at most once, so a copy is a sum
                unused = grad.new_zeros(ctx.image_rows, grad.shape[-1])
                image_grad = unused.index_copy(0, image_source, image_grad)
        return text_grad, image_grad, None, None, None, None, None


def _expand(first: Tensor, target: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Turn runs (first source row, first target, count) into one (source, target) pair per feature row."""
    within = torch.arange(int(count.sum())) - (count.cumsum(0) - count).repeat_interleave(count)
    return first.repeat_interleave(count) + within, target.repeat_interleave(count) + within


def _assign_slots(is_image: Tensor, lengths: Tensor) -> Tensor:
    """Slot of each placeholder of the batch, row by row; a row without any skips one."""
    placeholders = is_image.sum(1)
    slots = placeholders.clamp(min=1)
    if int(slots.sum()) != len(lengths):
        raise ValueError(
            f"The batch of {len(slots)} rows needs {int(slots.sum())} images ({int(placeholders.sum())} "
            f"<image> placeholders, and one unused slot for each of its {int((placeholders == 0).sum())} "
            f"rows without any), but {len(lengths)} were given; pass one image per placeholder and a dummy "
            "image or None for each text-only row."
        )
    slot = ((slots.cumsum(0) - slots)[:, None] + is_image.cumsum(1) - 1)[is_image]
    empty = slot[lengths[slot] == 0]
    if len(empty):
        raise ValueError(
            f"Image {int(empty[0])} of the batch is None, but an <image> placeholder stands for it; pass the "
            "image, or take the placeholder out of the prompt."
        )
    return slot
