"""From one sample's turns to token ids and labels, in the manner of a conversation template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from llava import conversation as conversation_lib
from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN, IGNORE_INDEX
from llava.conversation import SeparatorStyle
from llava.tokenization import text_to_ids
from llava.train.prompt_segments import SEGMENTS, SampleError, Turns, check_turns
from llava.train.token_labels import encode, encode_v0

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llava.conversation import Conversation

__all__ = [
    "SampleError",
    "check_turns",
    "conversation_for",
    "preprocess",
    "preprocess_dialogue",
    "preprocess_llama_2",
    "preprocess_mpt",
    "preprocess_multimodal",
    "preprocess_plain",
    "preprocess_v1",
    "unfit_end",
]


def conversation_for(version: str | None) -> Conversation:
    """The template that `--version` names.

    `v0` and `v0.5` only choose a pad token in LLaVA, and train with the default template; `default` is the
    template that `v0` names elsewhere.

    Raises:
        ValueError: No such template.
    """
    if version in {"v0", "v0.5"}:
        return conversation_lib.conv_templates["vicuna_v1"]
    if version not in conversation_lib.conv_templates:
        known = ", ".join(sorted({*conversation_lib.conv_templates, "v0.5"}))
        raise ValueError(
            f"--version {version} is not a conversation template to train with: pass one of {known}."
        )
    return conversation_lib.conv_templates[version]


def unfit_end(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The text that ends every answer, if it is no token of its own for the tokenizer; None if all is well.

    A model learns to stop by that token, so one that is several pieces is the sign of another family's
    template.
    """
    ends = {
        SeparatorStyle.TWO: conversation.sep2,
        SeparatorStyle.LLAMA_2: conversation.sep2,
        SeparatorStyle.MPT: conversation.sep,
    }
    end = ends.get(conversation.sep_style)
    if end is None:
        return None
    token = tokenizer.get_vocab().get(end)
    return None if token is not None and text_to_ids("a" + end, tokenizer)[-1] == token else end


def preprocess_multimodal(
    sources: Sequence[Turns],
    data_args: Any,
    conversation: Conversation | None = None,
    num_images: int = 1,
) -> list[Turns]:
    """Moves `<image>` to the front of its turn, on a line of its own, as LLaVA's weights expect it.

    Several `<image>` in one turn become one. With several images in a sample, each stays where it is spoken
    of. The given turns are left as they are.

    Args:
        sources: The turns of each sample.
        data_args: Its `is_multimodal` and `mm_use_im_start_end` are read.
        conversation: The template; None takes `llava.conversation.default_conversation`.
        num_images: Of each sample.

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
        if num_images > 1:
            return {**turn, "value": text.replace(DEFAULT_IMAGE_TOKEN, tagged)}
        rest = text.replace(DEFAULT_IMAGE_TOKEN, "").strip()
        return {
            **turn,
            "value": f"{DEFAULT_IMAGE_TOKEN}\n{rest}".strip().replace(DEFAULT_IMAGE_TOKEN, tagged),
        }

    return [[moved(turn) for turn in turns] for turns in sources]


def preprocess(
    sources: Sequence[Turns],
    tokenizer: PreTrainedTokenizerBase,
    has_image: bool = False,
    conversation: Conversation | None = None,
) -> dict[str, Any]:
    """Token ids and labels of samples.

    Args:
        sources: The turns of each sample, after `preprocess_multimodal`.
        tokenizer: Of the LLM.
        has_image: Whether `<image>` in the text stands for an image.
        conversation: The template; None takes `llava.conversation.default_conversation`.

    Returns:
        `input_ids` and `labels`, int64: (B, L) for a dialogue, a list of (L,) for `plain`.

    Raises:
        SampleError: A sample breaks the format.
    """
    conversation = conversation or conversation_lib.default_conversation
    if conversation.sep_style == SeparatorStyle.PLAIN:
        return preprocess_plain(sources, tokenizer, conversation=conversation)
    return preprocess_dialogue(sources, tokenizer, has_image, conversation)


def preprocess_dialogue(
    sources: Sequence[Turns],
    tokenizer: PreTrainedTokenizerBase,
    has_image: bool = False,
    conversation: Conversation | None = None,
) -> dict[str, torch.Tensor]:
    """Every template but `plain`; arguments as `preprocess`.

    Text-only rows are cut to the tokenizer's `model_max_length`; rows with an image are left to the collator.
    """
    conversation = conversation or conversation_lib.default_conversation
    limit = None if has_image else tokenizer.model_max_length
    segments_of = SEGMENTS[conversation.sep_style]
    code = encode_v0 if conversation.sep_style == SeparatorStyle.SINGLE else encode
    rows = [code(segments_of(turns, conversation), tokenizer, has_image) for turns in sources]
    return {
        "input_ids": pad_sequence([ids[:limit] for ids, _ in rows], True, tokenizer.pad_token_id or 0),
        "labels": pad_sequence([labels[:limit] for _, labels in rows], True, IGNORE_INDEX),
    }


# Names that forks of LLaVA import: the template says how turns are put together.
preprocess_v1 = preprocess_llama_2 = preprocess_mpt = preprocess_dialogue


def preprocess_plain(
    sources: Sequence[Turns],
    tokenizer: PreTrainedTokenizerBase,
    has_image: bool = True,
    conversation: Conversation | None = None,
) -> dict[str, list[torch.Tensor]]:
    """Stage 1: the image and its caption, nothing else; arguments as `preprocess`. No `</s>` is added."""
    conversation = conversation or conversation_lib.default_conversation
    segments_of = SEGMENTS[SeparatorStyle.PLAIN]
    rows = [encode(segments_of(turns, conversation), tokenizer, has_image=True) for turns in sources]
    return {"input_ids": [ids for ids, _ in rows], "labels": [labels for _, labels in rows]}
