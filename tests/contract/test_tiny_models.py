"""The tiny models are what a LLaVA recipe expects to find: formats old and new, and they can learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors import safe_open

from regap_patch.study import pretraining
from regap_patch.study.tiny import make_tiny_clip, make_tiny_llama
from regap_patch.study.tokens import train_tokenizer

PROMPTS = [
    "USER: What colour is the ring? ASSISTANT: red</s>USER: Is there a cross? ASSISTANT: no</s>",
    "naïve 42\n",
    "",
]


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny.llama, use_fast=False)


def test_tokenizer_is_laid_out_as_llama_s(tiny: Any, tokenizer: Any):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tiny.llama / "tokenizer.model"))
    assert [pieces.id_to_piece(index) for index in range(3)] == ["<unk>", "<s>", "</s>"]
    assert [tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token] == ["<s>", "</s>", "<unk>"]
    assert (tokenizer.pad_token, tokenizer.padding_side, len(tokenizer)) == (
        None,
        "right",
        pieces.vocab_size(),
    )


def test_transformers_agrees_with_sentencepiece(tiny: Any, tokenizer: Any):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tiny.llama / "tokenizer.model"))
    lines = tiny.world.corpus.read_text().splitlines()[:200]
    for line in [*PROMPTS[1:], *(line for line in lines if "</s>" not in line)]:
        assert tokenizer(line).input_ids == [1, *pieces.encode(line)]
    assert tokenizer.decode(tokenizer(PROMPTS[1]).input_ids, skip_special_tokens=True) == PROMPTS[1]


def test_user_is_one_piece_after_an_answer_and_two_at_the_start(tokenizer: Any):
    """As in LLaMA's vocabulary; upstream's label arithmetic is right on such tokenizers only."""
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(PROMPTS[0]).input_ids)
    assert pieces[:4] == ["<s>", "▁", "USER", ":"]
    assert pieces[pieces.index("</s>") + 1 :][:2] == ["USER", ":"]


def test_a_corpus_too_small_for_the_vocabulary_is_refused(tmp_path: Path):
    (tmp_path / "corpus.txt").write_text("a red ring\n")
    with pytest.raises(ValueError, match=r"640 pieces was asked for.*give more text"):
        train_tokenizer(tmp_path / "corpus.txt", tmp_path)


def test_files_have_the_names_of_published_checkpoints(tiny: Any):
    """What transformers 4.37 needs; tests/integration loads them there."""
    with safe_open(tiny.clip / "model.safetensors", "pt") as tensors:
        assert tensors.metadata() == {"format": "pt"}
        assert all(name.startswith("vision_model.") for name in tensors.keys())  # noqa: SIM118
    llama = json.loads((tiny.llama / "config.json").read_text())
    assert (llama["rope_theta"], llama["torch_dtype"], llama["architectures"]) == (
        1e4,
        "float32",
        ["LlamaForCausalLM"],
    )
    assert json.loads((tiny.clip / "preprocessor_config.json").read_text())["crop_size"] == {
        "height": 56,
        "width": 56,
    }


def test_folders_load_whole(tiny: Any):
    from transformers import CLIPImageProcessorPil, CLIPVisionModel, LlamaForCausalLM

    for model_class, folder in ((LlamaForCausalLM, tiny.llama), (CLIPVisionModel, tiny.clip)):
        model, info = model_class.from_pretrained(folder, output_loading_info=True)
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert model.dtype == torch.float32
    processor = CLIPImageProcessorPil.from_pretrained(tiny.clip)
    assert processor.crop_size["height"] == 56


def test_same_seed_same_bytes_and_the_callers_generator_is_left_alone(tiny: Any, tmp_path: Path):
    state = torch.get_rng_state()
    make_tiny_llama(tmp_path / "llama", tiny.llama)
    make_tiny_clip(tmp_path / "clip")
    make_tiny_clip(tmp_path / "other", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    weights = "model.safetensors"
    assert (tmp_path / "llama" / weights).read_bytes() == (tiny.llama / weights).read_bytes()
    assert (tmp_path / "clip" / weights).read_bytes() == (tiny.clip / weights).read_bytes()
    assert (tmp_path / "other" / weights).read_bytes() != (tiny.clip / weights).read_bytes()


def test_patch_labels_tell_the_quarter_s_contents():
    from regap_patch.study.scenes import Scene, Thing

    scene = Scene("white", (Thing("ring", "blue", "large", "bottom left", (0.0, 0.0)),))
    labels = torch.tensor(pretraining._patch_labels(scene, 4)).view(4, 4, 5)
    assert labels[3, 0].tolist() == [5, 2, 1, 2, 2]  # ring, blue, large, bottom left, white
    assert labels[0, 3].tolist() == [6, 6, 2, 1, 2]  # nothing, in the top right
    assert (labels[2:, :2] == labels[3, 0]).all()


def test_training_lowers_both_losses(tiny: Any, tmp_path: Path):
    start = pretraining.pretrain_tiny_llama(tmp_path / "a", tiny.llama, tiny.world.corpus, steps=1)
    assert (
        pretraining.pretrain_tiny_llama(tmp_path / "a", tiny.llama, tiny.world.corpus, steps=30) < 0.7 * start
    )
    start = pretraining.pretrain_tiny_clip(tmp_path / "b", steps=1)
    assert pretraining.pretrain_tiny_clip(tmp_path / "b", steps=30) < 0.8 * start
