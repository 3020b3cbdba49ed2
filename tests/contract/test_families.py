"""Families of language models: which classes they get, and LLaVA on Mistral from end to end."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from llava.model.language_model.families import FAMILIES, llava_class_for
from tests.contract.tiny_llava import model_args
from tests.contract.tiny_mistral import ROPE_THETA, make_tiny_mistral

if TYPE_CHECKING:
    from tests.conftest import TinyAssets


@pytest.fixture(scope="module")
def mistral(tiny: TinyAssets, tmp_path_factory: pytest.TempPathFactory):
    return make_tiny_mistral(tmp_path_factory.mktemp("families") / "mistral", tiny.llama)


def seeing(folder: Any, tiny: TinyAssets) -> Any:
    _, model_class = llava_class_for("mistral")
    torch.manual_seed(0)
    model = model_class.from_pretrained(str(folder), dtype=torch.float32)
    model.get_model().initialize_vision_modules(model_args(tiny))
    model.config.mm_use_im_patch_token = model.config.mm_use_im_start_end = False
    return model.eval()


def test_every_family_has_its_classes():
    import llava.model as exported

    for kind in FAMILIES:
        config_class, model_class = llava_class_for(kind)
        assert config_class.model_type == ("llava_mistral" if "mistral" in kind else "llava_llama")
        assert model_class.config_class is config_class
        assert getattr(exported, model_class.__name__) is model_class
    from transformers import AutoConfig

    assert AutoConfig.for_model("llava_mistral").__class__ is exported.LlavaMistralConfig


@pytest.mark.parametrize("kind", ["mpt", "llava_mpt"])
def test_mpt_is_refused_in_a_sentence(kind: str):
    with pytest.raises(ValueError, match=rf"^[^.]*type '{kind}', and LLaVA on MPT is not supported [^.]*\.$"):
        llava_class_for(kind)


@pytest.mark.parametrize("kind", ["opt", None])
def test_an_unknown_family_names_the_known(kind: str | None):
    with pytest.raises(
        ValueError, match=rf"type '{kind}', which has no LLaVA here; .*llava_mistral, mistral"
    ):
        llava_class_for(kind)


def test_the_wrong_class_says_so(tiny: TinyAssets, mistral):
    from llava.model import LlavaConfig, LlavaMistralConfig

    with pytest.raises(ValueError, match="is of the type 'mistral', and LlavaConfig reads llama"):
        LlavaConfig.from_pretrained(str(mistral))
    with pytest.raises(
        ValueError, match="is of the type 'llama', and LlavaMistralConfig reads llava_mistral, mistral"
    ):
        LlavaMistralConfig.from_pretrained(str(tiny.llama))


def test_saved_loaded_and_asked(tiny: TinyAssets, mistral, tmp_path):
    """Fields of the configuration under old and new names; logits and answers of the model that was saved."""
    from llava.model.builder import load_pretrained_model
    from llava.tokenization import load_tokenizer

    model = seeing(mistral, tiny)
    folder = tmp_path / "any-name"
    model.save_pretrained(folder)
    load_tokenizer(str(mistral)).save_pretrained(folder)
    fields = json.loads((folder / "config.json").read_text())
    assert fields["model_type"] == "llava_mistral"
    assert fields["rope_theta"] == fields["rope_parameters"]["rope_theta"] == ROPE_THETA
    assert fields["sliding_window"] is None
    _, loaded, processor, length = load_pretrained_model(str(folder), device="cpu", torch_dtype=torch.float32)
    assert type(loaded).__name__ == "LlavaMistralForCausalLM"
    assert processor is not None
    assert length == 2048
    ids, images = torch.tensor([[1, 300, -200, 310, 320]]), torch.randn(1, 3, 56, 56)
    with torch.inference_mode():
        before, after = (each(ids, images=images).logits for each in (model, loaded))
        assert torch.equal(before, after)
        tokens = loaded.generate(ids, images=images, max_new_tokens=4, do_sample=False)
        assert (
            tokens.tolist() == model.generate(ids, images=images, max_new_tokens=4, do_sample=False).tolist()
        )
    assert before.shape == (1, 4 + 16, fields["vocab_size"])


def test_the_sliding_window_is_kept_and_used(tiny: TinyAssets, mistral, tmp_path):
    narrow = make_tiny_mistral(tmp_path / "narrow", tiny.llama, sliding_window=4)
    ids = torch.arange(300, 316)[None]
    logits = []
    for folder in (mistral, narrow):
        model = seeing(folder, tiny)
        with torch.inference_mode():
            logits.append(model(ids).logits)
    assert model.config.sliding_window == 4
    assert torch.equal(logits[0][:, :4], logits[1][:, :4])
    assert not torch.allclose(logits[0][:, 8:], logits[1][:, 8:])


def test_trained_by_the_command(tiny: TinyAssets, mistral, tmp_path):
    from llava import conversation
    from llava.train.train import train
    from tests.integration.mini_run import flags

    changes = {
        "model_name_or_path": mistral,
        "version": "mistral_instruct",
        "max_steps": 3,
        "save_strategy": "no",
    }
    template = conversation.default_conversation
    try:
        train(argv=flags(tiny, 2, tmp_path / "out", **changes))
    finally:
        conversation.default_conversation = template
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert len(losses) == 3
    assert all(map(math.isfinite, losses))
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert fields["architectures"] == ["LlavaMistralForCausalLM"]
    assert fields["rope_theta"] == ROPE_THETA


def test_the_patch_finds_its_way(tiny: TinyAssets, mistral):
    """Statistics of image and text rows, and bit-equality without weight: Mistral is a host like LLaMA."""
    from regap_patch import ReGapConfig, apply_regap

    model = seeing(mistral, tiny).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("mm_projector" in name)
    ids = torch.tensor([[1, 300, -200, 310, 311], [1, 301, 302, 303, 304]])
    labels = torch.where(ids > 302, ids, -100)
    images = torch.randn(2, 3, 56, 56)
    plain = model(ids, labels=labels, images=images).loss
    with apply_regap(model, ReGapConfig(alpha=1.0)) as patch:
        assert patch.host.name == "llava"
        patched = model(ids, labels=labels, images=images).loss
        assert patched > plain
        assert float(patch.last.loss_gap) > 0
    assert torch.equal(model(ids, labels=labels, images=images).loss, plain)
