"""Prompts to the character: real weights answer to these strings only."""

from __future__ import annotations

import base64
from io import BytesIO

import pytest
from PIL import Image

from llava.conversation import SeparatorStyle, conv_templates, default_conversation, template_for, template_of

USER = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
HUMAN = USER.replace("user", "human")
SIGHT = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the "
    "user provides, and assist the user with a variety of tasks using natural language."
)
TAGGED = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant is able to "
    "understand the visual content that the user provides, and assist the user with a variety of tasks using "
    "natural language.The visual content will be provided with the following format: <Image>visual "
    "content</Image>."
)
LLAMA_2 = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being "
    "safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or "
    "illegal content. Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering "
    "something not correct. If you don't know the answer to a question, please don't share false information."
)
TURNS = ("<image>\nWhat is it?", "A cat.", "Sure?", None)


def prompt(key, turns=TURNS):
    conversation = conv_templates[key].copy()
    for index, text in enumerate(turns):
        conversation.append_message(conversation.roles[index % 2], text)
    return conversation.get_prompt()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("v1", f"{USER} USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:"),
        ("vicuna_v1", f"{USER} USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:"),
        ("llava_v1", f"{HUMAN} USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:"),
        ("v1_mmtag", f"{TAGGED} USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:"),
        (
            "llava_v0",
            f"{HUMAN}###Human: <image>\nWhat is it?###Assistant: A cat.###Human: Sure?###Assistant:",
        ),
        (
            "llava_llama_2",
            f"[INST] <<SYS>>\n{SIGHT}\n<</SYS>>\n\n<image>\nWhat is it? [/INST] "
            "A cat. </s><s>[INST] Sure? [/INST]",
        ),
        (
            "llama_2",
            f"[INST] <<SYS>>\n{LLAMA_2}\n<</SYS>>\n\n<image>\nWhat is it? [/INST] "
            "A cat. </s><s>[INST] Sure? [/INST]",
        ),
        (
            "v0_mmtag",
            f"{TAGGED}###Human: <image>\nWhat is it?###Assistant: A cat.###Human: Sure?###Assistant:",
        ),
        (
            "mpt",
            "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The assistant "
            "gives helpful and honest answers.<|im_end|><|im_start|>user\n<image>\nWhat is it?<|im_end|>"
            "<|im_start|>assistant\nA cat.<|im_end|><|im_start|>user\nSure?<|im_end|><|im_start|>assistant\n",
        ),
        ("mistral_instruct", "[INST] <image>\nWhat is it? [/INST] A cat. </s>[INST] Sure? [/INST]"),
        (
            "chatml_direct",
            "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nWhat is "
            "it?<|im_end|><|im_start|>assistant\nA cat.<|im_end|><|im_start|>user\nSure?<|im_end|>"
            "<|im_start|>assistant\n",
        ),
    ],
)
def test_prompt(key, expected):
    assert prompt(key) == expected


@pytest.mark.parametrize("key", ["plain", "v0_plain"])
def test_plain_is_the_caption_between_newlines(key):
    assert prompt(key, ("<image>", None)) == "<image>\n"
    assert prompt(key, ("<image>caption",)) == "<image>caption\n"


@pytest.mark.parametrize("key", ["default", "v0"])
def test_version_0_begins_with_an_example(key):
    text = prompt(key, ("Hi", None))
    assert text.startswith(
        f"{HUMAN}###Human: What are the key differences between renewable and non-renewable "
    )
    assert text.count("###") == 4
    assert text.endswith("economic and social instability.\n###Human: Hi###Assistant:")
    conversation = conv_templates[key].copy()
    conversation.append_message("Human", "Hi")
    conversation.append_message("Assistant", None)
    assert conversation.to_gradio_chatbot() == [["Hi", None]], "the example is not part of the chat"
    assert len(conv_templates[key].messages) == 2


def test_a_conversation_without_a_system_prompt():
    conversation = conv_templates["llava_llama_2"].copy()
    conversation.system = ""
    conversation.append_message("USER", "Hi")
    conversation.append_message("ASSISTANT", None)
    assert conversation.get_prompt() == "[INST] Hi [/INST]"


def test_the_default_is_what_published_weights_were_trained_with():
    assert default_conversation is conv_templates["v1"] is conv_templates["vicuna_v1"]
    assert conv_templates["v1"].sep_style is SeparatorStyle.TWO


def test_an_empty_answer_is_a_slot():
    assert prompt("v1", ("Hi", "")) == prompt("v1", ("Hi", None)) == f"{USER} USER: Hi ASSISTANT:"


def test_the_picture_of_the_first_message_moves_to_its_front():
    assert prompt("v1", (("What <image>is it?", None, "Pad"), None)) == (
        f"{USER} USER: <image>\nWhat is it? ASSISTANT:"
    )
    assert prompt("v1_mmtag", (("<image>\nWhat?", None, "Pad"), None)) == (
        f"{TAGGED} USER: <Image><image></Image> ASSISTANT: Received.</s>USER: What? ASSISTANT:"
    )


def test_llama_2_wants_a_first_message_of_the_user():
    conversation = conv_templates["llava_llama_2"].copy()
    conversation.append_message("ASSISTANT", "Hi")
    with pytest.raises(ValueError, match="starts with a message of 'USER'"):
        conversation.get_prompt()


def test_a_copy_goes_its_own_way():
    first = conv_templates["v1"].copy()
    first.skip_next = True
    second = first.copy()
    second.append_message("USER", "Hi")
    assert first.messages == []
    assert not second.skip_next


def test_pictures_for_display():
    conversation = conv_templates["v1"].copy()
    wide = Image.new("RGB", (2000, 500), "red")
    conversation.append_message("USER", ("<image>\nWhat?", wide, "Pad"))
    conversation.append_message("ASSISTANT", "Red.")
    square = conversation.get_images(return_pil=True)[0]
    assert square.size == (672, 672)
    assert square.getpixel((0, 0)) == (122, 116, 104)
    assert conversation.process_image(wide, "Default", return_pil=True).size == (1344, 336)
    assert conversation.process_image(wide, "Resize", return_pil=True).size == (336, 336)
    with pytest.raises(ValueError, match="The image mode 'Tilt' is unknown"):
        conversation.process_image(wide, "Tilt")
    file = BytesIO(base64.b64decode(conversation.get_images()[0]))
    assert Image.open(file).format == "PNG"
    [[question, answer]] = conversation.to_gradio_chatbot()
    assert question.startswith('<img src="data:image/jpeg;base64,')
    assert question.endswith("What?")
    assert answer == "Red."
    assert conversation.dict()["messages"] == [["USER", "<image>\nWhat?"], ["ASSISTANT", "Red."]]


@pytest.mark.parametrize(
    ("name", "version", "human"),
    [("llava-v1.5-7b", "v1", True), ("LLaVA-Mistral", "llama_v2", False), ("my-model", "Unknown", True)],
)
def test_a_name_suggests_a_template(name, version, human):
    conversation = template_for(name)
    assert conversation.version == version
    assert ("human" in conversation.system) is human


def test_what_a_model_was_trained_with_comes_before_its_name(tmp_path, caplog):
    assert template_for("llava-v1.5-7b", None, "mistral_instruct").version == "llama_v2"
    assert template_for("llava-v1.5-7b", None, "of another fork").version == "v1"
    folder = tmp_path / "my-model"
    folder.mkdir()
    assert template_of(str(folder)).version == "Unknown", "as the name suggests"
    (folder / "config.json").write_text('{"conversation_template": "v1"}')
    assert template_of(str(folder)).get_prompt() == conv_templates["vicuna_v1"].get_prompt()
    assert template_of(str(folder), "vicuna_v1").version == "v1"
    assert not caplog.messages
    assert template_of(str(folder), "llava_v0").version == "Unknown"
    assert caplog.messages == ["'my-model' was trained with the template v1; using llava_v0 as asked."]


def test_an_unknown_template_names_the_known_ones():
    with pytest.raises(ValueError, match=r"The conversation template 'v9' is unknown; .*vicuna_v1"):
        template_for("llava-v1.5-7b", "v9")
