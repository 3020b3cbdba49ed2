"""What both packages named `llava` make of conversation templates; see `operations.py`."""

from __future__ import annotations

import inspect
from typing import Any
from unittest import mock


def templates() -> dict[str, dict[str, Any]]:
    """Every template by its key: all fields, as plain values."""
    from llava.conversation import conv_templates

    def described(conversation: Any) -> dict[str, Any]:
        fields = ("system", "offset", "sep", "sep2", "version", "skip_next")
        return {name: getattr(conversation, name) for name in fields} | {
            "roles": list(conversation.roles),
            "messages": [list(message) for message in conversation.messages],
            "sep_style": conversation.sep_style.name,
        }

    return {key: described(conversation) for key, conversation in conv_templates.items()}


def prompts(*, cases: list[dict[str, Any]]) -> list[str]:
    """The prompt of each case: `key`, `system` (None: the template's own), `turns` and whether `pictured`.

    The first turn of a pictured case is what a server stores: a text, a picture and how to fit it. No prompt
    looks at the picture.
    """
    from llava.conversation import conv_templates

    def prompt(case: dict[str, Any]) -> str:
        conversation = conv_templates[case["key"]].copy()
        conversation.messages = [list(message) for message in conversation.messages]
        if case["system"] is not None:
            conversation.system = case["system"]
        for number, text in enumerate(case["turns"]):
            said = (text, None, "Default") if case["pictured"] and number == 0 else text
            conversation.append_message(conversation.roles[number % 2], said)
        try:
            return conversation.get_prompt()
        except (AssertionError, TypeError, ValueError):
            return "refused"

    return [prompt(case) for case in cases]


# Upstream's last version walks over ChatML with lengths that fit no tokenizer, and ignores every sample. With
# these the lengths are those of a tokenizer that adds no BOS: splitting at `<|im_end|>` takes one token from
# each round, and nothing stands for it; a question's text has no BOS to take off.
MENDING = {
    "cur_len += round_len\n": "cur_len += round_len + 1\n",
    "instruction_len = len(tokenizer_image_token(parts[0], tokenizer)) - 1": (
        "instruction_len = len(tokenizer_image_token(parts[0], tokenizer))"
    ),
    "instruction_len = len(tokenizer(parts[0]).input_ids) - 1": (
        "instruction_len = len(tokenizer(parts[0]).input_ids)"
    ),
}


def mended_rows(**arguments: Any) -> list[dict[str, Any]]:
    """`operations.collated_rows` of upstream with its ChatML mended; in its environment only."""
    import operations

    from llava.train import train as module

    source = inspect.getsource(module.preprocess_mpt)
    for written, mended in MENDING.items():
        assert source.count(written) == 1, written
        source = source.replace(written, mended)
    names = dict(vars(module))
    exec(source, names)
    with mock.patch.object(module, "preprocess_mpt", names["preprocess_mpt"]):
        return operations.collated_rows(**arguments)
