"""Label masks of every template, read back by decoding, and templates that do not fit a tokenizer."""

from __future__ import annotations

import json
import logging
import math
import shutil
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.mm_utils import tokenizer_image_token
from llava.tokenization import load_tokenizer
from llava.train.preprocess import preprocess, unfit_end
from llava.train.prompt_segments import SEGMENTS
from tests.contract.tiny_tokenizers import make_chatml_tokenizer

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

DIALOGUE_KEYS = ("v1", "v1_mmtag", "llama_2", "llava_llama_2", "mistral_instruct", "chatml_direct", "mpt")
TEXTS = st.text(alphabet=st.sampled_from(list("aeist  .:?\n17é語😀[]/|<>")), min_size=1, max_size=16).filter(
    lambda text: not any(tag in text for tag in ("<s>", "</s>"))
)
DIALOGUES = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def llama(tiny: TinyAssets) -> Any:
    made = load_tokenizer(str(tiny.llama), padding_side="right", model_max_length=2048)
    made.pad_token = made.unk_token
    return made


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = load_tokenizer(str(make_chatml_tokenizer(tmp_path_factory.mktemp("chatml"))))
    made.pad_token = made.unk_token
    return made


def turns_of(rounds: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        {"from": who, "value": text}
        for pair in rounds
        for who, text in zip(("human", "gpt"), pair, strict=True)
    ]


def prompt_of(key: str, rounds: list[tuple[str, str]]) -> str:
    conversation = conv_templates[key].copy()
    conversation.messages = []
    for number, turn in enumerate(turns_of(rounds)):
        conversation.append_message(conversation.roles[number % 2], turn["value"])
    return conversation.get_prompt()


def learned(key: str, rounds: list[tuple[str, str]], tokenizer: Any) -> tuple[list[int], list[str]]:
    """Ids, and the text of each run of supervised tokens."""
    has_image = "<image>" in rounds[0][0]
    coded = preprocess([turns_of(rounds)], tokenizer, has_image, conv_templates[key])
    ids, labels = coded["input_ids"][0].tolist(), coded["labels"][0].tolist()
    assert all(label in (IGNORE_INDEX, token) for token, label in zip(ids, labels, strict=True))
    pairs = zip(ids, labels, strict=True)
    runs = [list(run) for kept, run in groupby(pairs, lambda pair: pair[1] != IGNORE_INDEX) if kept]
    return ids, [tokenizer.decode([token for token, _ in run]) for run in runs]


@pytest.mark.parametrize("key", [*DIALOGUE_KEYS, "plain"])
def test_segments_are_the_prompt(key: str):
    rounds = [("<image>\nwhat ", " a"), ("b", "c ")][: 1 if key == "plain" else None]
    segments = SEGMENTS[conv_templates[key].sep_style](turns_of(rounds), conv_templates[key])
    if key == "plain":
        rounds = [("<image>a", "")]
        assert "".join(segment.text for segment in segments) == "<image> a\n"
        return
    assert "".join(segment.text for segment in segments) == prompt_of(key, rounds)


@pytest.mark.parametrize("key", ["llama_2", "llava_llama_2", "mistral_instruct"])
@quick
@given(rounds=DIALOGUES)
@example(rounds=[("<image>\na", "b [/INST] "), (" [INST]", "b")])
def test_llama_2_supervises_answers_and_their_ends(llama: Any, key: str, rounds: list[tuple[str, str]]):
    ids, found = learned(key, rounds, llama)
    assert ids == tokenizer_image_token(prompt_of(key, rounds), llama)
    assert found == [f"{answer} </s>" for _, answer in rounds]


@pytest.mark.parametrize("key", ["chatml_direct", "mpt"])
@quick
@given(rounds=DIALOGUES)
@example(rounds=[("<image>\na", "b"), ("<image>", "c"), ("a", " b ")])
def test_chatml_on_a_tokenizer_without_bos(chatml: Any, key: str, rounds: list[tuple[str, str]]):
    rounds = [(question, answer.strip("\n") + ".") for question, answer in rounds]
    ids, found = learned(key, rounds, chatml)
    has_image = "<image>" in rounds[0][0]
    prompt = prompt_of(key, rounds)
    assert ids == (tokenizer_image_token(prompt, chatml) if has_image else chatml(prompt).input_ids)
    assert found == [f"{answer}<|im_end|>" for _, answer in rounds]
    assert chatml.bos_token_id not in ids


def test_chatml_on_a_tokenizer_with_bos(llama: Any):
    """`<|im_end|>` is several pieces there; the mask is right all the same."""
    rounds = [("<image>\nwhat", "a ring"), ("and", "left")]
    ids, found = learned("chatml_direct", rounds, llama)
    assert found == ["a ring<|im_end|>", "left<|im_end|>"]
    assert ids[0] == llama.bos_token_id
    assert ids.count(llama.bos_token_id) == 1


def test_a_prompt_that_begins_with_an_image_and_has_no_bos(chatml: Any):
    coded = preprocess([turns_of([("<image>", "a ring")])], chatml, True, conv_templates["plain"])
    assert coded["input_ids"][0].tolist() == [IMAGE_TOKEN_INDEX, *chatml("a ring\n").input_ids]
    assert coded["labels"][0].tolist() == [IGNORE_INDEX, *chatml("a ring\n").input_ids]


def test_version_0_by_hand(chatml: Any):
    """Two rounds without BOS: lengths of turns add up, so only what is learned on purpose is learned."""
    ids, found = learned("llava_v0", [("what", "a ring"), ("and", "left")], chatml)
    text = (
        f"{conv_templates['llava_v0'].system}\n\n### Human: what\n### Assistant: a ring\n"
        "### Human: and\n### Assistant: left\n### "
    )
    assert chatml.decode(ids) == text
    mark = chatml.decode(chatml("### Human").input_ids[:2])
    assert found == [mark, f"### Assistant: a ring\n{mark}", "### Assistant: left\n### "]


def test_which_templates_fit(llama: Any, chatml: Any):
    ends = {key: unfit_end(conversation, llama) for key, conversation in conv_templates.items()}
    chatml_keys = {"chatml_direct", "mistral_direct", "mpt"}
    assert {key for key, end in ends.items() if end is not None} == chatml_keys
    assert ends["mpt"] == "<|im_end|>"
    assert unfit_end(conv_templates["mpt"], chatml) is None
    assert unfit_end(conv_templates["v1"], chatml) == "</s>"
    assert unfit_end(conv_templates["llava_v0"], chatml) is None


def test_a_template_of_another_family_is_named(tiny: TinyAssets, tmp_path: Path, monkeypatch, caplog):
    from llava import conversation
    from llava.train.arguments import parse_arguments
    from llava.train.language_model import load_tokenizer as load_for_training
    from tests.integration.mini_run import flags

    monkeypatch.setattr(conversation, "default_conversation", conversation.default_conversation)
    for version, warned in (("chatml_direct", True), ("v1", False)):
        model_args, _, training_args = parse_arguments(flags(tiny, 2, tmp_path, version=version))
        with caplog.at_level(logging.WARNING, logger="llava"):
            load_for_training(model_args, training_args, None)
        assert ("--version chatml_direct ends every answer with '<|im_end|>'" in caplog.text) == warned
        caplog.clear()


def test_a_tokenizer_without_unk_pads_with_its_end(tiny: TinyAssets, tmp_path: Path, monkeypatch):
    """As ChatML's tokenizers of today are; whose end token is in the text is known by lengths, not by ids."""
    from llava import conversation
    from llava.train.arguments import parse_arguments
    from llava.train.language_model import load_tokenizer as load_for_training
    from tests.integration.mini_run import flags

    monkeypatch.setattr(conversation, "default_conversation", conversation.default_conversation)
    folder = make_chatml_tokenizer(tmp_path / "model")
    shutil.copyfile(tiny.llama / "config.json", folder / "config.json")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for changes, pad in (({}, "<|endoftext|>"), ({"unk_token": None}, "<|endoftext|>")):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | changes))
        asked = flags(tiny, 2, tmp_path, model_name_or_path=folder, version="chatml_direct")
        model_args, _, training_args = parse_arguments(asked)
        assert load_for_training(model_args, training_args, None).pad_token == pad
    bare = {"unk_token": None, "eos_token": None, "bos_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | bare))
    with pytest.raises(ValueError, match="has neither <unk> nor an end token to pad with; pass --version v0"):
        load_for_training(model_args, training_args, None)


@pytest.mark.parametrize("version", ["llama_2", "chatml_direct", "llava_v0", "v1_mmtag"])
def test_each_kind_of_template_trains(tiny: TinyAssets, tmp_path: Path, monkeypatch, version: str):
    from llava import conversation
    from llava.train.train import train
    from tests.integration.mini_run import flags, losses

    monkeypatch.setattr(conversation, "default_conversation", conversation.default_conversation)
    train(argv=flags(tiny, 2, tmp_path / "out", version=version, max_steps=2, model_max_length=512))
    assert len(losses(tmp_path / "out")) == 2
    assert all(math.isfinite(loss) for loss in losses(tmp_path / "out"))
    said = json.loads((tmp_path / "out" / "config.json").read_text())["conversation_template"]
    assert conv_templates[said] is conv_templates[version], "what a chat starts with"
