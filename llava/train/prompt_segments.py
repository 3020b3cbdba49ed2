"""A sample's prompt as segments, each learned or not: one function for each way of putting turns together.

Joined, the segments of a dialogue are `Conversation.get_prompt()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation, SeparatorStyle

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


def two_segments(turns: Turns, conversation: Conversation) -> list[Segment]:
    """Vicuna v1: every answer is learned, with the space before it and the `</s>` after it."""
    human, gpt = conversation.roles
    segments = [Segment(conversation.system + conversation.sep, False)]
    for place, turn in enumerate(check_turns(turns)):
        if place % 2 == 0:
            segments.append(Segment(f"{human}: {turn['value']}{conversation.sep}", False))
        else:
            segments += [Segment(f"{gpt}:", False), Segment(f" {turn['value']}{conversation.sep2}", True)]
    return segments


def llama_2_segments(turns: Turns, conversation: Conversation) -> list[Segment]:
    """LLaMA-2 and Mistral: every answer is learned, with the spaces around it and the `</s>` after it."""
    system = f"<<SYS>>\n{conversation.system}\n<</SYS>>\n\n" if conversation.system else ""
    segments = []
    for place, turn in enumerate(check_turns(turns)):
        if place % 2:
            segments.append(Segment(f" {turn['value']} {conversation.sep2}", True))
            continue
        # The tokenizer's own BOS stands for the first `<s>`.
        before, text = (conversation.sep, turn["value"]) if place else ("", system + turn["value"])
        segments.append(Segment(f"{before}[INST] {text} [/INST]", False))
    return segments


def mpt_segments(turns: Turns, conversation: Conversation) -> list[Segment]:
    """ChatML: every answer is learned with the `<|im_end|>` after it."""
    segments = [Segment(conversation.system + conversation.sep, False)]
    for place, turn in enumerate(check_turns(turns)):
        said = turn["value"] + conversation.sep
        segments += [Segment(conversation.roles[place % 2], False), Segment(said, place % 2 == 1)]
    return segments


def plain_segments(turns: Turns, conversation: Conversation) -> list[Segment]:
    """Stage 1: the images, then the caption and a newline; the question's words are not used."""
    turns = check_turns(turns)
    images = turns[0]["value"].count(DEFAULT_IMAGE_TOKEN)
    if len(turns) != 2 or not images:
        raise SampleError(
            "--version plain takes one question with <image> and one caption; "
            "train dialogues with --version v1"
        )
    return [Segment(DEFAULT_IMAGE_TOKEN * images, False), Segment(turns[1]["value"] + conversation.sep, True)]


def single_segments(turns: Turns, conversation: Conversation) -> list[Segment]:
    """LLaVA v0: `### Human: ...` a line, and `### ` after the last; not what `get_prompt` makes.

    `supervised` says who speaks here, no more: which tokens are learned is v0's own affair
    (`token_labels.encode_v0`).
    """
    said = [
        Segment(f"### {conversation.roles[place % 2]}: {turn['value']}\n", place % 2 == 1)
        for place, turn in enumerate(check_turns(turns))
    ]
    return [Segment(f"{conversation.system}\n\n", False), *said, Segment("### ", True)]


SEGMENTS: dict[SeparatorStyle, Callable[[Turns, Conversation], list[Segment]]] = {
    SeparatorStyle.SINGLE: single_segments,
    SeparatorStyle.TWO: two_segments,
    SeparatorStyle.MPT: mpt_segments,
    SeparatorStyle.PLAIN: plain_segments,
    SeparatorStyle.LLAMA_2: llama_2_segments,
}
