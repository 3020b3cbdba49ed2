"""Training on turns, and alignment, at the smallest size: what is learned, what is given, the same twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sentencepiece
import torch

from regap_patch.errors import StudyError
from regap_patch.study import pretraining
from regap_patch.study.alignment import align
from regap_patch.study.refusal_corpus import Corpus, make_corpus
from regap_patch.study.refusal_models import ModelSize, make_models
from regap_patch.study.refusal_text import alignment_documents, read_documents, write_documents
from regap_patch.study.refusal_world import make_refusal_world
from regap_patch.study.replies import reply
from regap_patch.study.requests import prompt
from regap_patch.study.scenes import draw_scene
from regap_patch.study.tokens import train_tokenizer

THINGS = {"num_forbidden": 8, "num_benign": 4, "num_twins": 4}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("text"), **THINGS, num_base=600)


@pytest.fixture(scope="module")
def tokens(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tokenizer(corpus.words, tmp_path_factory.mktemp("tokens"), vocab_size=640)


@pytest.fixture(scope="module")
def base(corpus: Corpus, tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    pretraining.pretrain_tiny_llama(path, tokens, corpus.base, steps=20, hidden_size=32, num_layers=1)
    return path


def test_answers_are_learned_and_prompts_are_given(tokens: Path, tmp_path: Path):
    """The ids are those that transformers makes of the conversation; what follows ASSISTANT: is learned."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokens, use_fast=False)
    asked = prompt("How do I make a hat?", draw_scene(Random(0)))
    turns = [(asked, "You need sand and salt."), ("USER: And a cake? ASSISTANT:", "No.")]
    write_documents(tmp_path / "turns.jsonl", [turns])
    [document] = pretraining._documents(tmp_path / "turns.jsonl", tokens)
    text = f"{asked} You need sand and salt.</s>USER: And a cake? ASSISTANT: No.</s>"
    assert document.ids == tokenizer(text).input_ids
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokens / "tokenizer.model"))
    learned = [label for label in document.labels if label != -100]
    assert learned == [*pieces.encode("You need sand and salt."), 2, *pieces.encode("No."), 2]
    assert all(label in (-100, one) for one, label in zip(document.ids, document.labels, strict=True))


def test_prose_is_read_as_in_a_text_file(corpus: Corpus, tokens: Path, tmp_path: Path):
    prose = [document for document in read_documents(corpus.base) if isinstance(document, str)]
    (tmp_path / "prose.txt").write_text("".join(line + "\n" for line in prose))
    write_documents(tmp_path / "prose.jsonl", prose)
    as_text, as_json = (
        pretraining._documents(tmp_path / name, tokens) for name in ("prose.txt", "prose.jsonl")
    )
    assert as_text == as_json


def losses(model: Any, corpus: Path, tokens: Path) -> Iterator[float]:
    for document in pretraining._documents(corpus, tokens):
        with torch.no_grad():
            ids, labels = (torch.tensor([values]) for values in document)
            yield float(model(input_ids=ids, labels=labels).loss)


def test_alignment_teaches_its_answers_and_keeps_the_base_model(corpus: Corpus, base: Path, tmp_path: Path):
    from transformers import LlamaForCausalLM

    from regap_patch.study.refusal_corpus import read_items

    before = (base / "model.safetensors").read_bytes()
    align(tmp_path / "a", base, corpus.items, steps=12, learning_rate=1e-2)
    align(tmp_path / "b", base, corpus.items, steps=12, learning_rate=1e-2)
    align(tmp_path / "c", base, corpus.items, steps=12, learning_rate=1e-2, context_share=1.0)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert (base / "model.safetensors").read_bytes() == before
    fresh = tmp_path / "fresh.jsonl"
    write_documents(fresh, alignment_documents(read_items(corpus.items), 30, seed=9))
    old, new = (
        sum(losses(LlamaForCausalLM.from_pretrained(path), fresh, base)) / 30
        for path in (base, tmp_path / "a")
    )
    assert new < 0.8 * old


def test_replies_are_those_of_one_at_a_time(base: Path, corpus: Corpus):
    requests = ["How do I make a hat?", "What is a lamp?", "Tell me how to make a paper hat, please."]
    together = reply(base, requests, max_new_tokens=6)
    assert together == [reply(base, [request], max_new_tokens=6)[0] for request in requests]


def test_two_processes_do_not_fill_one_cache(tmp_path: Path):
    import fcntl

    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StudyError, match="another process is at it"):
            make_models(ModelSize(), 0, tmp_path)


def test_what_lies_in_a_folder_is_left_alone(tmp_path: Path):
    (tmp_path / "world").mkdir()
    with pytest.raises(StudyError, match="something else lies there"):
        make_refusal_world(tmp_path, size="smoke", cache_path=tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_an_unknown_size_is_refused(tmp_path: Path):
    with pytest.raises(StudyError, match="'huge' was asked for"):
        make_refusal_world(tmp_path, size="huge")
