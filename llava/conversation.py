"""Conversations and the prompts that models were trained with, exact to the character."""

from __future__ import annotations

import base64
import dataclasses
import logging
from collections.abc import Callable
from enum import Enum, auto
from io import BytesIO
from typing import Any

from llava import prompt_texts
from llava.constants import DEFAULT_IMAGE_TOKEN

logger = logging.getLogger(__name__)

PADDING_COLOUR = (122, 116, 104)
"""CLIP's mean colour."""


class SeparatorStyle(Enum):
    """How turns are put together."""

    SINGLE = auto()
    TWO = auto()
    MPT = auto()
    PLAIN = auto()
    LLAMA_2 = auto()


@dataclasses.dataclass
class Conversation:
    """A system prompt and turns `[role, text]`; text may be `(text, PIL image, mode)`, or None for a slot."""

    system: str
    roles: tuple[str, str]
    messages: list[Any]
    offset: int
    sep_style: SeparatorStyle = SeparatorStyle.SINGLE
    sep: str = "###"
    sep2: str | None = None
    version: str = "Unknown"
    skip_next: bool = False

    def get_prompt(self) -> str:
        """The text for the tokenizer; an empty message is the slot where the model goes on."""
        return _STYLES[self.sep_style](self, self._texts())

    def append_message(self, role: str, message: Any) -> None:
        """Add a turn."""
        self.messages.append([role, message])

    def _texts(self) -> list[tuple[str, str]]:
        """Roles and texts; the image of the first message moves to its front."""
        turns = [(role, _text(message)) for role, message in self.messages]
        if not self.messages or not isinstance(self.messages[0][1], tuple):
            return turns
        role, text = turns[0]
        text = text.replace(DEFAULT_IMAGE_TOKEN, "").strip()
        if "mmtag" not in self.version:
            return [(role, f"{DEFAULT_IMAGE_TOKEN}\n{text}"), *turns[1:]]
        image = (self.roles[0], f"<Image>{DEFAULT_IMAGE_TOKEN}</Image>")
        return [image, (self.roles[1], "Received."), (role, text), *turns[1:]]

    def process_image(
        self,
        image: Any,
        image_process_mode: str,
        return_pil: bool = False,
        image_format: str = "PNG",
        max_len: int = 1344,
        min_len: int = 672,
    ) -> Any:
        """Fit a picture for display or for a worker.

        Args:
            image: PIL picture.
            image_process_mode: "Pad" to a square, "Resize" to 336 x 336, "Default" or "Crop" for neither.
            return_pil: the picture, rather than its file in base64.
            image_format: of that file.
            max_len: pictures with a longer side than this shrink ...
            min_len: ... to a shorter side of at most this.

        Raises:
            ValueError: another mode.
        """
        if image_process_mode == "Pad":
            from llava.mm_utils import expand2square

            image = expand2square(image, PADDING_COLOUR)
        elif image_process_mode == "Resize":
            image = image.resize((336, 336))
        elif image_process_mode not in ("Default", "Crop"):
            raise ValueError(
                f"The image mode '{image_process_mode}' is unknown; pass Pad, Resize, Crop or Default."
            )
        longest, shortest = max(image.size), min(image.size)
        if longest > max_len:
            aspect = longest / shortest
            short = int(min(max_len / aspect, min_len, shortest))
            size = (int(short * aspect), short)
            image = image.resize(size if image.width >= image.height else size[::-1])
        return image if return_pil else _base64(image, image_format)

    def get_images(self, return_pil: bool = False) -> list[Any]:
        """All pictures of the first speaker, in order."""
        return [
            self.process_image(message[1], message[2], return_pil=return_pil)
            for _, message in self.messages[self.offset :: 2]
            if isinstance(message, tuple)
        ]

    def to_gradio_chatbot(self) -> list[list[str | None]]:
        """Pairs [question, answer]; pictures are inlined as `<img>`."""
        pairs: list[list[str | None]] = []
        for index, (_, message) in enumerate(self.messages[self.offset :]):
            if index % 2:
                pairs[-1][1] = message
                continue
            shown = message
            if isinstance(message, tuple):
                text, image, mode = message
                data = self.process_image(image, "Default" if mode == "Crop" else mode, image_format="JPEG")
                picture = f'<img src="data:image/jpeg;base64,{data}" alt="user upload image" />'
                shown = picture + text.replace(DEFAULT_IMAGE_TOKEN, "").strip()
            pairs.append([shown, None])
        return pairs

    def copy(self) -> Conversation:
        """A conversation that can go another way; `skip_next` starts anew."""
        messages = [[role, message] for role, message in self.messages]
        return dataclasses.replace(self, messages=messages, skip_next=False)

    def dict(self) -> dict[str, Any]:
        """What logs keep: texts, no pictures."""
        return {
            "system": self.system,
            "roles": self.roles,
            "messages": [[role, m[0] if isinstance(m, tuple) else m] for role, m in self.messages],
            "offset": self.offset,
            "sep": self.sep,
            "sep2": self.sep2,
        }


Turns = list[tuple[str, str]]


def _text(message: Any) -> str:
    return (message[0] if isinstance(message, tuple) else message) or ""


def _base64(image: Any, image_format: str) -> str:
    buffer = BytesIO()
    image.convert("RGB").save(buffer, format=image_format)
    return base64.b64encode(buffer.getvalue()).decode()


def _single(conv: Conversation, turns: Turns) -> str:
    said = (f"{role}: {text}{conv.sep}" if text else f"{role}:" for role, text in turns)
    return conv.system + conv.sep + "".join(said)


def _two(conv: Conversation, turns: Turns) -> str:
    ends = (conv.sep, conv.sep2)
    said = (f"{role}: {text}{ends[i % 2]}" if text else f"{role}:" for i, (role, text) in enumerate(turns))
    return conv.system + conv.sep + "".join(said)


def _mpt(conv: Conversation, turns: Turns) -> str:
    return conv.system + conv.sep + "".join(role + (text + conv.sep if text else "") for role, text in turns)


def _llama_2(conv: Conversation, turns: Turns) -> str:
    if turns and (turns[0][0] != conv.roles[0] or not turns[0][1]):
        raise ValueError(
            f"A conversation of this template starts with a message of '{conv.roles[0]}'; found none."
        )
    prompt = ""
    for i, (_, text) in enumerate(turns):
        if not text:
            continue
        if i == 0 and conv.system:
            text = f"<<SYS>>\n{conv.system}\n<</SYS>>\n\n{text}"  # noqa: PLW2901
        prompt += f" {text} {conv.sep2}" if i % 2 else f"{conv.sep}[INST] {text} [/INST]"
    return prompt.lstrip(conv.sep)  # the characters of `<s>`, one by one: the tokenizer adds its own


def _plain(conv: Conversation, turns: Turns) -> str:
    ends = (conv.sep, conv.sep2 or "")
    return conv.system + "".join(text + ends[i % 2] if text else "" for i, (_, text) in enumerate(turns))


_STYLES: dict[SeparatorStyle, Callable[[Conversation, Turns], str]] = {
    SeparatorStyle.SINGLE: _single,
    SeparatorStyle.TWO: _two,
    SeparatorStyle.MPT: _mpt,
    SeparatorStyle.PLAIN: _plain,
    SeparatorStyle.LLAMA_2: _llama_2,
}


def _template(system: str, roles: tuple[str, str], style: SeparatorStyle, **fields: Any) -> Conversation:
    return Conversation(system=system, roles=roles, messages=[], offset=0, sep_style=style, **fields)


def _vicuna(system: str, version: str = "v1") -> Conversation:
    roles = ("USER", "ASSISTANT")
    return _template(system, roles, SeparatorStyle.TWO, sep=" ", sep2="</s>", version=version)


def _chatml(system: str) -> Conversation:
    roles = ("<|im_start|>user\n", "<|im_start|>assistant\n")
    return _template(system, roles, SeparatorStyle.MPT, sep="<|im_end|>", version="mpt")


def _llama(system: str, sep: str) -> Conversation:
    roles = ("USER", "ASSISTANT")
    return _template(system, roles, SeparatorStyle.LLAMA_2, sep=sep, sep2="</s>", version="llama_v2")


def _v0(system: str, version: str = "Unknown") -> Conversation:
    return _template(system, ("Human", "Assistant"), SeparatorStyle.SINGLE, version=version)


conv_vicuna_v0 = _v0(prompt_texts.HUMAN)
conv_vicuna_v0.messages = [
    ["Human", prompt_texts.EXAMPLE_QUESTION],
    ["Assistant", prompt_texts.EXAMPLE_ANSWER],
]
conv_vicuna_v0.offset = 2
conv_llava_v0 = _v0(prompt_texts.HUMAN)
conv_llava_v0_mmtag = _v0(prompt_texts.MMTAG, "v0_mmtag")
conv_vicuna_v1 = _vicuna(prompt_texts.USER)
conv_llava_v1 = _vicuna(prompt_texts.HUMAN)
conv_llava_v1_mmtag = _vicuna(prompt_texts.MMTAG, "v1_mmtag")
conv_llama_2 = _llama(prompt_texts.LLAMA_2, "<s>")
conv_llava_llama_2 = _llama(prompt_texts.LANGUAGE_AND_VISION, "<s>")
conv_mistral_instruct = _llama("", "")
conv_chatml_direct = _chatml(prompt_texts.ANSWERS)
conv_mpt = _chatml(prompt_texts.MPT_CHAT)
conv_llava_plain = _template("", ("", ""), SeparatorStyle.PLAIN, sep="\n")

default_conversation = conv_vicuna_v1
"""Training replaces this module variable by the template of `--version`."""

# The first part of a model's name that is found decides.
_NAMES = (
    ("llama-2", "llava_llama_2"),
    ("mistral", "mistral_instruct"),
    ("v1.6-34b", "chatml_direct"),
    ("v1", "llava_v1"),
    ("mpt", "mpt"),
)


def template_of(model_path: str, conv_mode: str | None = None) -> Conversation:
    """`template_for` a checkpoint, with what its `config.json` says of its training.

    Raises:
        ValueError: unknown `conv_mode`.
    """
    from llava.mm_utils import get_model_name_from_path
    from llava.model.checkpoint_files import find_file, read_config

    fields = read_config(model_path) if find_file(model_path, "config.json") else {}
    return template_for(get_model_name_from_path(model_path), conv_mode, fields.get("conversation_template"))


def template_for(
    model_name: str, conv_mode: str | None = None, trained_with: str | None = None
) -> Conversation:
    """A fresh conversation for a model, in the template `conv_mode`.

    Without it, the template that the model was trained with; where that is not known, the one that the name
    suggests.

    Raises:
        ValueError: unknown `conv_mode`.
    """
    known = trained_with in conv_templates
    named = next((key for part, key in _NAMES if part in model_name.lower()), "llava_v0")
    suggested = trained_with if known else named
    key = suggested if conv_mode is None else conv_mode
    if key not in conv_templates:
        raise ValueError(
            f"The conversation template '{key}' is unknown; pass --conv-mode with one of "
            f"{', '.join(conv_templates)}."
        )
    if conv_templates[key] is not conv_templates[suggested]:
        reason = f"'{model_name}' was trained with" if known else f"The name '{model_name}' suggests"
        logger.warning("%s the template %s; using %s as asked.", reason, suggested, key)
    return conv_templates[key].copy()


conv_templates: dict[str, Conversation] = {
    "default": conv_vicuna_v0,
    "v0": conv_vicuna_v0,
    "v1": conv_vicuna_v1,
    "vicuna_v1": conv_vicuna_v1,
    "llama_2": conv_llama_2,
    "mistral_instruct": conv_mistral_instruct,
    "chatml_direct": conv_chatml_direct,
    "mistral_direct": conv_chatml_direct,
    "plain": conv_llava_plain,
    "v0_plain": conv_llava_plain,
    "llava_v0": conv_llava_v0,
    "v0_mmtag": conv_llava_v0_mmtag,
    "llava_v1": conv_llava_v1,
    "v1_mmtag": conv_llava_v1_mmtag,
    "llava_llama_2": conv_llava_llama_2,
    "mpt": conv_mpt,
}
