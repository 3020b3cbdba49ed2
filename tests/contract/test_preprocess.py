"""Prompts and label masks, against the template's own prompt and spans read back by decoding."""

from __future__ import annotations

from itertools import groupby
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llava import conversation as conversation_lib
from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.mm_utils import tokenizer_image_token
from llava.tokenization import load_tokenizer, text_to_ids, text_to_ids_and_places
from llava.train.preprocess import conversation_for, preprocess, preprocess_multimodal

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

V1 = conversation_lib.conv_templates["v1"]
PLAIN = conversation_lib.conv_templates["plain"]
MULTIMODAL = SimpleNamespace(is_multimodal=True, mm_use_im_start_end=False)
TEXTS = st.text(
    alphabet=st.one_of(
        st.sampled_from(list("aeist  .:?!\n\t0179é語😀")), st.characters(exclude_categories=["Cs", "Cc"])
    ).filter(lambda character: character != "\u2581"),  # SentencePiece's own space does not come back
    min_size=1,
    max_size=24,
).filter(lambda text: not any(tag in text for tag in ("<s>", "</s>", "<unk>", "<image>")))
DIALOGUES = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class WithoutOffsets:
    """A tokenizer that cannot say where its tokens come from."""

    is_fast = False

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, text: str, **kwargs: Any):
        assert "return_offsets_mapping" not in kwargs
        return self._tokenizer(text, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@pytest.fixture(scope="module", params=[False, True], ids=["current", "legacy"])
def tokenizer(request: pytest.FixtureRequest, tiny: TinyAssets):
    made = load_tokenizer(str(tiny.llama), legacy=request.param, padding_side="right", model_max_length=2048)
    made.pad_token = made.unk_token
    return made


def turns_of(rounds: list[tuple[str, str]]) -> list[dict[str, str]]:
    speakers = ("human", "gpt")
    return [{"from": speakers[n], "value": pair[n]} for pair in rounds for n in (0, 1)]


def prompt_of(template: Any, turns: list[dict[str, str]]) -> str:
    conversation = template.copy()
    for number, turn in enumerate(turns):
        conversation.append_message(conversation.roles[number % 2], turn["value"])
    return conversation.get_prompt()


def row(turns: list[dict[str, str]], tokenizer: Any, has_image: bool = False, template: Any = V1):
    coded = preprocess([turns], tokenizer, has_image, template)
    return coded["input_ids"][0].tolist(), coded["labels"][0].tolist()


def learned(ids: list[int], labels: list[int], tokenizer: Any) -> list[str]:
    """The text of each run of supervised tokens."""
    assert all(label in (IGNORE_INDEX, token) for token, label in zip(ids, labels, strict=True))
    runs = [list(run) for kept, run in groupby(labels, lambda label: label != IGNORE_INDEX) if kept]
    return [tokenizer.decode(run) for run in runs]


@quick
@given(rounds=DIALOGUES)
@example(rounds=[(" a", " b"), ("a ", "b ")])
@example(rounds=[("a", "\n"), ("\n", "b")])
@example(rounds=[("USER: a", "ASSISTANT"), ("a ASSISTANT: ", "b USER: ")])
def test_v1_supervises_the_answers_and_their_ends(tokenizer: Any, rounds: list[tuple[str, str]]):
    ids, labels = row(turns_of(rounds), tokenizer)
    assert ids == text_to_ids(prompt_of(V1, turns_of(rounds)), tokenizer)
    assert learned(ids, labels, tokenizer) == [answer + "</s>" for _, answer in rounds]


@quick
@given(rounds=DIALOGUES, place=st.integers(0, 3))
def test_v1_with_an_image(tokenizer: Any, rounds: list[tuple[str, str]], place: int):
    place %= len(rounds)
    rounds[place] = (f"{DEFAULT_IMAGE_TOKEN}\n{rounds[place][0]}", rounds[place][1])
    ids, labels = row(turns_of(rounds), tokenizer, has_image=True)
    assert ids == tokenizer_image_token(prompt_of(V1, turns_of(rounds)), tokenizer)
    assert ids.count(IMAGE_TOKEN_INDEX) == 1
    assert labels[ids.index(IMAGE_TOKEN_INDEX)] == IGNORE_INDEX
    assert learned(ids, labels, tokenizer) == [answer + "</s>" for _, answer in rounds]


@quick
@given(caption=TEXTS, question=TEXTS)
@example(caption=" a", question="b")
@example(caption="</s>a", question="b")
def test_plain_is_image_caption_newline(tokenizer: Any, caption: str, question: str):
    turns = turns_of([(f"{question}\n{DEFAULT_IMAGE_TOKEN}", caption)])
    ids, labels = row(turns, tokenizer, has_image=True, template=PLAIN)
    assert ids == tokenizer_image_token(f"{DEFAULT_IMAGE_TOKEN}{caption}\n", tokenizer)
    assert ids[:2] == [tokenizer.bos_token_id, IMAGE_TOKEN_INDEX]
    assert labels == [IGNORE_INDEX, IGNORE_INDEX, *ids[2:]]


@quick
@given(rounds=DIALOGUES)
def test_a_tokenizer_without_offsets_gets_the_same_mask(tokenizer: Any, rounds: list[tuple[str, str]]):
    turns = turns_of(rounds)
    assert row(turns, WithoutOffsets(tokenizer)) == row(turns, tokenizer)


@quick
@given(
    text=st.lists(st.sampled_from(["a", " ", "</s>", "\u2581", "\n", "<unk>", "é", "語"]), max_size=8).map(
        "".join
    )
)
def test_every_token_knows_its_last_character(tokenizer: Any, text: str):
    ids, places = text_to_ids_and_places(text, tokenizer)
    assert ids == text_to_ids(text, tokenizer)
    assert places[0] == -1
    assert places[1:] == sorted(places[1:])
    ends = {place for token, place in zip(ids, places, strict=True) if token == tokenizer.eos_token_id}
    assert ends == {end + 3 for end in range(len(text)) if text.startswith("</s>", end)}


def test_a_byte_level_tokenizer_gets_exact_spans_too():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["</s>"])
    backend.train_from_iterator(["USER ASSISTANT a red circle is left of a ring"] * 4, trainer)
    byte_level = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="</s>")
    rounds = [("<image>\nwhat?", "a ring"), ("where", "left é")]
    ids, labels = row(turns_of(rounds), byte_level, has_image=True)
    assert learned(ids, labels, byte_level) == [" a ring</s>", " left é</s>"]
    assert [token for token in ids if token != IMAGE_TOKEN_INDEX] == [
        token
        for piece in prompt_of(V1, turns_of(rounds)).split("<image>")
        for token in byte_level(piece).input_ids
    ]


@pytest.mark.parametrize(
    ("rounds", "spans"),
    [
        ([("what </s> is", "a ring"), ("and", "left")], ["a ring</s>", "left</s>"]),
        ([("what", "a ring </s> or")], ["a ring </s> or</s>"]),
        ([("what", "a <unk> ring"), ("and <unk>", "left")], None),
        ([("what", "no ASSISTANT: here"), ("and", "left")], ["no ASSISTANT: here</s>", "left</s>"]),
    ],
    ids=["eos in question", "eos in answer", "unk", "marker in answer"],
)
def test_text_that_looks_like_the_template(
    tokenizer: Any, rounds: list[tuple[str, str]], spans: list[str] | None
):
    """Upstream's arithmetic gives these samples up; a mask made from segments does not."""
    ids, labels = row(turns_of(rounds), tokenizer)
    found = learned(ids, labels, tokenizer)
    assert len(found) == len(rounds)
    if spans is not None:  # a legacy tokenizer puts a space after every special token
        assert ["".join(text.split()) for text in found] == ["".join(text.split()) for text in spans]
    assert [token for token in labels if token != IGNORE_INDEX].count(tokenizer.eos_token_id) == sum(
        answer.count("</s>") + 1 for _, answer in rounds
    )


def test_a_leading_answer_is_dropped_and_a_last_question_is_not_learned(tokenizer: Any):
    turns = turns_of([("what", "a ring")])
    assert row([{"from": "gpt", "value": "hello"}, *turns], tokenizer) == row(turns, tokenizer)
    ids, labels = row([*turns, {"from": "human", "value": "and"}], tokenizer)
    assert learned(ids, labels, tokenizer) == ["a ring</s>"]
    assert tokenizer.decode(ids).endswith("USER: and ")


def test_text_rows_are_cut_and_image_rows_are_left_to_the_collator(tokenizer: Any, monkeypatch):
    rounds = [("what is left", "a ring"), ("and right", "a circle")] * 4
    whole_ids, whole_labels = row(turns_of(rounds), tokenizer)
    monkeypatch.setattr(tokenizer, "model_max_length", 60)
    assert len(whole_ids) > 60
    assert row(turns_of(rounds), tokenizer) == (whole_ids[:60], whole_labels[:60])
    rounds[0] = ("<image>\nwhat", "a ring")
    assert len(row(turns_of(rounds), tokenizer, has_image=True)[0]) > 60


def test_a_batch_is_padded_on_the_right(tokenizer: Any):
    short, long = turns_of([("what", "a ring")]), turns_of([("what is left", "a ring"), ("and", "a circle")])
    coded = preprocess([short, long], tokenizer, False, V1)
    ids, labels = row(short, tokenizer)
    assert coded["input_ids"].shape == coded["labels"].shape
    assert coded["input_ids"][0, : len(ids)].tolist() == ids
    assert set(coded["input_ids"][0, len(ids) :].tolist()) == {tokenizer.pad_token_id}
    assert coded["labels"][0].tolist() == labels + [IGNORE_INDEX] * (coded["labels"].shape[1] - len(labels))


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("<image>\nwhat", "<image>\nwhat"),
        ("what <image> is", "<image>\nwhat  is"),
        ("what\n<image>", "<image>\nwhat"),
        ("<image>", "<image>"),
        ("<image><image> a <image>", "<image>\na"),
        ("  what ", "  what "),
    ],
)
def test_the_image_moves_to_the_front(said: str, text: str):
    turns = [{"from": "human", "value": said}, {"from": "gpt", "value": "a"}]
    (moved,) = preprocess_multimodal([turns], MULTIMODAL, V1)
    assert [turn["value"] for turn in moved] == [text, "a"]
    assert turns[0]["value"] == said, "the caller's turns are left as they are"
    assert preprocess_multimodal([turns], SimpleNamespace(is_multimodal=False), V1) == [turns]


def test_images_are_wrapped_where_asked():
    turns = [{"from": "human", "value": "a <image>"}]
    start_end = SimpleNamespace(is_multimodal=True, mm_use_im_start_end=True)
    tagged = conversation_lib.conv_templates["v1_mmtag"]
    assert preprocess_multimodal([turns], start_end, V1)[0][0]["value"] == "<im_start><image><im_end>\na"
    assert preprocess_multimodal([turns], MULTIMODAL, tagged)[0][0]["value"] == "<Image><image></Image>\na"


def test_versions_choose_templates():
    assert conversation_for("plain") is PLAIN
    assert conversation_for("v0") is conversation_for("v0.5") is conversation_lib.conv_templates["vicuna_v1"]
    assert all(conversation_for(name) for name in conversation_lib.conv_templates)
    with pytest.raises(
        ValueError, match="--version v9 is not a conversation template to train with: pass one"
    ):
        conversation_for("v9")


def test_the_default_template_is_the_modules(tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    turns = turns_of([("<image>", "a ring")])
    monkeypatch.setattr(conversation_lib, "default_conversation", PLAIN)
    assert preprocess([turns], tokenizer, True)["input_ids"][0][0] == tokenizer.bos_token_id
