"""From a prompt's segments to token ids and labels.

The prompt is tokenized whole, so the ids are those of its text, and every token takes the mark of its last
character: ids and mask cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.mm_utils import tokenizer_image_token
from llava.tokenization import ids_around_images, text_to_ids, text_to_ids_and_places

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llava.train.prompt_segments import Segment


def encode(
    segments: Sequence[Segment], tokenizer: PreTrainedTokenizerBase, has_image: bool
) -> tuple[Tensor, Tensor]:
    """Ids (L,) and labels (L,) of a prompt, int64.

    Args:
        segments: Of the prompt.
        tokenizer: Of the LLM.
        has_image: Whether `<image>` stands for an image; the text around it is then tokenized in pieces.
    """
    text = "".join(segment.text for segment in segments)
    marks = [segment.supervised for segment in segments for _ in segment.text]

    def code(chunk: str, start: int = 0) -> list[tuple[int, int]]:
        ids, learned = _learned(chunk, marks[start : start + len(chunk)], tokenizer)
        return [(token, token if kept else IGNORE_INDEX) for token, kept in zip(ids, learned, strict=True)]

    image = (IMAGE_TOKEN_INDEX, IGNORE_INDEX)
    pairs = (
        ids_around_images(text, code, image, lambda pair: pair[0] == tokenizer.bos_token_id)
        if has_image
        else code(text)
    )
    ids, labels = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).unbind(1)
    return ids.contiguous(), labels.contiguous()


def encode_v0(
    segments: Sequence[Segment], tokenizer: PreTrainedTokenizerBase, has_image: bool
) -> tuple[Tensor, Tensor]:
    """Ids (L,) and labels (L,) of LLaVA v0, int64: its arithmetic on lengths, as its weights were trained.

    Each turn's length is that of its text tokenized alone, BOS included, so a place is one token too far on
    for every turn before it. Of a question the first two tokens are learned on purpose (`###` and the role:
    where an answer ends), the rest is not; everything after the system prompt that is in no question is.
    """

    def tokenized(text: str) -> list[int]:
        if has_image:
            return tokenizer_image_token(text, tokenizer)
        return text_to_ids(text, tokenizer)[: tokenizer.model_max_length]

    ids = torch.tensor(tokenized("".join(segment.text for segment in segments)), dtype=torch.long)
    labels = ids.masked_fill(ids == IMAGE_TOKEN_INDEX, IGNORE_INDEX)
    header, *turns, _ = segments
    place = len(tokenized(header.text))
    labels[:place] = IGNORE_INDEX
    for turn in turns:
        end = place + len(tokenized(turn.text))
        if not turn.supervised:
            labels[place + 2 : end] = IGNORE_INDEX
        place = end
    return ids, labels


def _learned(
    text: str, marks: Sequence[bool], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[bool]]:
    """Ids of a text, and of each whether its last character is marked."""
    if tokenizer.is_fast:
        ids, places = text_to_ids_and_places(text, tokenizer)
        return ids, [place >= 0 and marks[place] for place in places]
    # Without offsets: the ids before a border are those that the text before it begins with.
    ids = text_to_ids(text, tokenizer)
    learned = [False] * len(ids)
    borders = [place for place in range(len(text)) if place == 0 or marks[place] != marks[place - 1]]
    firsts = [_common(text_to_ids(text[:place], tokenizer), ids) for place in borders]
    for border, first, last in zip(borders, firsts, [*firsts[1:], len(ids)], strict=True):
        learned[first:last] = [marks[border]] * (last - first)
    return ids, learned


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids two sequences have in common at their beginning."""
    return next(
        (n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
