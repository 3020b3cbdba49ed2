"""From one sample's turns to token ids and labels.

A prompt is a list of segments, each supervised or not. The prompt is tokenized whole, so the ids are those of
its text, and every token takes the mark of its last character: ids and mask cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from llava import conversation as conversation_lib
from llava.constants import (
    DEFAULT_IM_END_TOKEN,
    DEFAULT_IM_START_TOKEN,
    DEFAULT_IMAGE_TOKEN,
    IGNORE_INDEX,
    IMAGE_TOKEN_INDEX,
)
from llava.tokenization import text_to_ids, text_to_ids_and_places

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llava.conversation import Conversation

Turns = Sequence[Mapping[str, Any]]
_SPEAKERS = ("human", "gpt")


class SampleError(ValueError):
    """A sample cannot be used for training; the text says what was found and what to do."""

    def __init__(self, text: str) -> None:
        # A data worker's error arrives as its whole traceback, which ends in the sentence.
        super().__init__(text.rpartition("SampleError: ")[2].rstrip("\n"))


class Segment(NamedTuple):
    """A piece of a prompt, and whether its tokens are training targets."""

    text: str
    supervised: bool


def conversation_for(version: str | None) -> Conversation:
    """The template that `--version` names.

    `v0` and `v0.5` only choose a pad token in LLaVA, and train with the default template.

    Raises:
        ValueError: No such template, or one whose label mask is not defined here.
    """
    if version in {"v0", "v0.5"}:
        return conversation_lib.conv_templates["vicuna_v1"]
    trainable = {name: conv for name, conv in conversation_lib.conv_templates.items() if _recipe(conv)}
    if version not in trainable:
        known = ", ".join(sorted({*trainable, "v0", "v0.5"}))
        raise ValueError(
            f"--version {version} is not a conversation template to train with: pass one of {known}."
        )
    return trainable[version]


def preprocess_multimodal(
    sources: Sequence[Turns], data_args: Any, conversation: Conversation | None = None
) -> list[Turns]:
    """Moves `<image>` to the front of its turn, on a line of its own, as LLaVA's weights expect it.

    Several `<image>` in one turn become one. The given turns are left as they are.

    Args:
        sources: The turns of each sample.
        data_args: Its `is_multimodal` and `mm_use_im_start_end` are read.
        conversation: The template; None takes `llava.conversation.default_conversation`.

    Returns:
        The rewritten turns of each sample.
    """
    if not data_args.is_multimodal:
        return list(sources)
    conversation = conversation or conversation_lib.default_conversation
    placeholder = DEFAULT_IMAGE_TOKEN
    if getattr(data_args, "mm_use_im_start_end", False):
        placeholder = DEFAULT_IM_START_TOKEN + placeholder + DEFAULT_IM_END_TOKEN
    tagged = f"<Image>{placeholder}</Image>" if "mmtag" in conversation.version else placeholder

    def moved(turn: Mapping[str, Any]) -> Mapping[str, Any]:
        text = turn["value"]
        if DEFAULT_IMAGE_TOKEN not in text:
            return turn
        rest = text.replace(DEFAULT_IMAGE_TOKEN, "").strip()
        return {
            **turn,
            "value": f"{DEFAULT_IMAGE_TOKEN}\n{rest}".strip().replace(DEFAULT_IMAGE_TOKEN, tagged),
        }

    return [[moved(turn) for turn in turns] for turns in sources]


def check_turns(turns: Any) -> Turns:
    """The turns as a dialogue of human and gpt, without a leading answer to no question.

    Raises:
        SampleError: Not a list of turns, an unknown speaker, two turns in a row by one, or an empty turn.
    """
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise SampleError("it has no `conversations`; give it a list of {from, value} turns")
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
            raise SampleError(f"turn {number} is not {{from, value}} with a text as value; rewrite it so")
        if turn.get("from") not in _SPEAKERS:
            raise SampleError(
                f"turn {number} is from {turn.get('from')!r}; the speakers must be 'human' and 'gpt'"
            )
    dropped = int(turns[0]["from"] != "human")
    checked: Turns = turns[dropped:]
    for place, turn in enumerate(checked):
        number = place + 1 + dropped
        if turn["from"] != _SPEAKERS[place % 2]:
            raise SampleError(
                f"turns {number - 1} and {number} are both from {turn['from']!r}; "
                "'human' and 'gpt' must alternate"
            )
        if not turn["value"]:
            kind = "answer" if place % 2 else "question"
            raise SampleError(f"turn {number} is an empty {kind}; write one or remove the turn pair")
    if len(checked) < 2:
        raise SampleError("it has no answer to learn; add a 'gpt' turn after a 'human' turn")
    return checked


def preprocess(
    sources: Sequence[Turns],
    tokenizer: PreTrainedTokenizerBase,
    has_image: bool = False,
    conversation: Conversation | None = None,
) -> dict[str, Any]:
    """Token ids and labels of samples, in the manner of the conversation template.

    Args:
        sources: The turns of each sample, after `preprocess_multimodal`.
        tokenizer: Of the LLM.
        has_image: Whether `<image>` in the text stands for an image.
        conversation: The template; None takes `llava.conversation.default_conversation`.

    Returns:
        `input_ids` and `labels`, int64: (B, L) for a dialogue, a list of (L,) for `plain`.

    Raises:
        SampleError: A sample breaks the format.
        ValueError: The template has no label mask here.
    """
    conversation = conversation or conversation_lib.default_conversation
    recipe = _recipe(conversation)
    if recipe is None:
        raise ValueError(
            f"The conversation template of version {conversation.version!r} has no label mask here: "
            "train with `plain` or `v1`."
        )
    return recipe(sources, tokenizer, has_image, conversation)


def preprocess_v1(
    sources: Sequence[Turns],
    tokenizer: PreTrainedTokenizerBase,
    has_image: bool = False,
    conversation: Conversation | None = None,
) -> dict[str, torch.Tensor]:
    """Vicuna's dialogue: every answer and the `</s>` after it are supervised; arguments as `preprocess`.

    Text-only rows are cut to the tokenizer's `model_max_length`; rows with an image are left to the collator.
    """
    conversation = conversation or conversation_lib.default_conversation
    limit = None if has_image else tokenizer.model_max_length
    rows = [_encode(v1_segments(turns, conversation), tokenizer, has_image) for turns in sources]
    return {
        "input_ids": pad_sequence([ids[:limit] for ids, _ in rows], True, tokenizer.pad_token_id or 0),
        "labels": pad_sequence([labels[:limit] for _, labels in rows], True, IGNORE_INDEX),
    }


def preprocess_plain(
    sources: Sequence[Turns],
    tokenizer: PreTrainedTokenizerBase,
    has_image: bool = True,
    conversation: Conversation | None = None,
) -> dict[str, list[torch.Tensor]]:
    """Stage 1: the image and its caption, nothing else; arguments as `preprocess`. No `</s>` is added."""
    conversation = conversation or conversation_lib.default_conversation
    rows = [_encode(plain_segments(turns, conversation), tokenizer, has_image=True) for turns in sources]
    return {"input_ids": [ids for ids, _ in rows], "labels": [labels for _, labels in rows]}


def v1_segments(turns: Turns, conversation: Conversation) -> list[Segment]:
    """System prompt, questions and answers; joined they are `Conversation.get_prompt()`."""
    human, gpt = conversation.roles
    segments = [Segment(conversation.system + conversation.sep, False)]
    for place, turn in enumerate(check_turns(turns)):
        if place % 2 == 0:
            segments.append(Segment(f"{human}: {turn['value']}{conversation.sep}", False))
        else:
            segments += [Segment(f"{gpt}:", False), Segment(f" {turn['value']}{conversation.sep2}", True)]
    return segments


def plain_segments(turns: Turns, conversation: Conversation) -> list[Segment]:
    """The image, then the caption and a newline; the question's words are not used."""
    turns = check_turns(turns)
    if len(turns) != 2 or DEFAULT_IMAGE_TOKEN not in turns[0]["value"]:
        raise SampleError(
            "--version plain takes one question with <image> and one caption; "
            "train dialogues with --version v1"
        )
    return [Segment(DEFAULT_IMAGE_TOKEN, False), Segment(turns[1]["value"] + conversation.sep, True)]


def _recipe(conversation: Conversation) -> Callable[..., dict[str, Any]] | None:
    if conversation.sep_style == conversation_lib.SeparatorStyle.PLAIN:
        return preprocess_plain
    if conversation.sep_style == conversation_lib.SeparatorStyle.TWO and conversation.version.startswith(
        "v1"
    ):
        return preprocess_v1
    return None


def _encode(
    segments: Sequence[Segment], tokenizer: PreTrainedTokenizerBase, has_image: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (L,) and labels (L,) of a prompt, int64; around images it is tokenized in pieces, as LLaVA does."""
    text = "".join(segment.text for segment in segments)
    marks = [segment.supervised for segment in segments for _ in segment.text]
    ids: list[int] = []
    labels: list[int] = []
    start = 0
    for chunk in text.split(DEFAULT_IMAGE_TOKEN) if has_image else [text]:
        chunk_ids, chunk_labels = _encode_chunk(chunk, marks[start : start + len(chunk)], tokenizer)
        if start:
            bos = int(ids[0] == tokenizer.bos_token_id)  # every piece comes with its own BOS
            ids += [IMAGE_TOKEN_INDEX, *chunk_ids[bos:]]
            labels += [IGNORE_INDEX, *chunk_labels[bos:]]
        else:
            ids, labels = chunk_ids, chunk_labels
        start += len(chunk) + len(DEFAULT_IMAGE_TOKEN)
    return torch.tensor(ids, dtype=torch.long), torch.tensor(labels, dtype=torch.long)


def _encode_chunk(
    text: str, marks: Sequence[bool], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[int]]:
    if tokenizer.is_fast:
        ids, places = text_to_ids_and_places(text, tokenizer)
        kept = [place >= 0 and marks[place] for place in places]
        return ids, [token if keep else IGNORE_INDEX for token, keep in zip(ids, kept, strict=True)]
    # Without offsets: the ids before a border are those that the text before it begins with.
    ids = text_to_ids(text, tokenizer)
    labels = [IGNORE_INDEX] * len(ids)
    borders = [place for place in range(len(text)) if place == 0 or marks[place] != marks[place - 1]]
    firsts = [_common(text_to_ids(text[:place], tokenizer), ids) for place in borders]
    for border, first, last in zip(borders, firsts, [*firsts[1:], len(ids)], strict=True):
        if marks[border]:
            labels[first:last] = ids[first:last]
    return ids, labels


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids two sequences have in common at their beginning."""
    return next(
        (n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
