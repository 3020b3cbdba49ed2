"""LoRA folders, merged into their base or beside its quantised weights, against peft's own forward."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from lora_folders import with_adapter, write
from tiny_llava import make_model

from llava.constants import IMAGE_TOKEN_INDEX

QUESTION = torch.tensor([[1, 20, IMAGE_TOKEN_INDEX, 30]])
WORDS = torch.tensor([[1, 20, 31, 30, 5]])
PICTURE = torch.linspace(-1, 1, 3 * 56 * 56).view(1, 3, 56, 56)


def load(path, base=None, **kwargs):
    from llava.model.builder import load_pretrained_model

    return load_pretrained_model(str(path), None if base is None else str(base), device="cpu", **kwargs)


@torch.no_grad()
def answer(model):
    return model(QUESTION, images=PICTURE).logits


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A finished LoRA run, whose projector trained too: its folder, and what it answers in memory."""
    model = make_model(tiny)
    base_answer = answer(model.eval())
    for parameter in model.model.mm_projector.parameters():
        parameter.data += 0.1
    adapted = with_adapter(model)
    folder = write(adapted, tmp_path_factory.mktemp("run") / "lora", ["mm_projector"])
    expected = answer(adapted)
    assert (expected - base_answer).abs().max() > 0.1, "an adapter without effect would agree by itself"
    return folder, expected


@pytest.mark.parametrize("named", [False, True])
def test_the_base_is_given_or_found(run, tiny, named):
    folder, expected = run
    tokenizer, model, processor, context = load(
        folder, tiny.llama if named else None, torch_dtype=torch.float32
    )
    torch.testing.assert_close(answer(model), expected, atol=1e-5, rtol=0)
    assert type(model).__name__ == "LlavaLlamaForCausalLM"
    assert not any("lora" in name for name, _ in model.named_modules())
    assert len(tokenizer) == model.config.vocab_size
    assert (processor.crop_size["height"], context) == (56, 2048)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_dtypes_are_those_of_any_checkpoint(run, dtype):
    _, model, _, _ = load(run[0], torch_dtype=dtype)
    language = {p.dtype for name, p in model.named_parameters() if "vision_tower" not in name}
    assert language == {dtype or torch.float16}
    torch.testing.assert_close(answer(model.float()), run[1], atol=0.1, rtol=0)


def test_its_own_tokenizer_comes_first(run, tiny, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "own")
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(tiny.llama / name, folder / name)
    assert load(folder)[0].name_or_path == str(folder)
    assert load(run[0])[0].name_or_path == str(tiny.llama)


def test_on_top_of_a_whole_llava(llava_folder, tmp_path):
    """Neither projector nor tower trained: both are the base's."""
    from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM

    base = LlavaLlamaForCausalLM.from_pretrained(llava_folder, dtype=torch.float32)
    base.get_vision_tower().load_model()
    adapted = with_adapter(base)
    folder = write(adapted, tmp_path / "lora")
    _, model, _, _ = load(folder, torch_dtype=torch.float32)
    torch.testing.assert_close(answer(model), answer(adapted), atol=1e-5, rtol=0)
    (folder / "config.json").unlink()  # as peft alone leaves it
    _, model, _, _ = load(folder, torch_dtype=torch.float32)
    torch.testing.assert_close(answer(model), answer(adapted), atol=1e-5, rtol=0)


def test_a_tower_and_embeddings_that_trained_as_a_whole(tiny, tmp_path):
    model = make_model(tiny, mm_use_im_start_end=True)
    model.config.mm_use_im_start_end = True
    model.resize_token_embeddings(model.config.vocab_size + 2)
    for parameter in (*model.get_vision_tower().parameters(), *model.get_input_embeddings().parameters()):
        parameter.data += 0.02
    adapted = with_adapter(model)
    folder = write(adapted, tmp_path / "lora", ["mm_projector", "vision_tower", "embed_tokens", "lm_head"])
    _, loaded, _, _ = load(folder, tiny.llama, torch_dtype=torch.float32)
    torch.testing.assert_close(answer(loaded), answer(adapted), atol=1e-5, rtol=0)
    assert len(loaded.get_input_embeddings().weight) == len(model.get_input_embeddings().weight)


def test_biases_beside_the_adapter(tiny, tmp_path):
    """With `--lora_bias all` those of projector and tower are in the adapter's file."""
    model = make_model(tiny)
    adapted = with_adapter(model, bias="all")
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data += 0.1
    folder = write(adapted, tmp_path / "lora", ["mm_projector"])
    _, loaded, _, _ = load(folder, torch_dtype=torch.float32)
    torch.testing.assert_close(answer(loaded), answer(adapted), atol=1e-5, rtol=0)


VARIANTS = {
    "rank-stabilised": {"use_rslora": True},
    "patterns": {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 32}},
    "modules-to-save": {"modules_to_save": ["lm_head"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "dora": {"use_dora": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_plain_language_model_and_the_variants_of_lora(tiny, tmp_path, variant):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.llama, dtype=torch.float32)
    adapted = with_adapter(model, **VARIANTS[variant])
    with torch.no_grad():
        if variant == "modules-to-save":
            adapted.base_model.model.lm_head.modules_to_save["default"].weight += 0.3
        expected = adapted(WORDS).logits
    adapted.save_pretrained(tmp_path)
    _, loaded, processor, _ = load(tmp_path, torch_dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(WORDS).logits, expected, atol=2e-5, rtol=0)
    assert type(loaded).__name__ == "LlamaForCausalLM"
    assert processor is None


def test_merging_is_pefts_own(tiny, tmp_path):
    """In float32 to its last bits but a few, in half precision as peft rounds."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from llava.model.lora_merge import apply_lora

    base = AutoModelForCausalLM.from_pretrained(tiny.llama, dtype=torch.float32)
    with_adapter(base).save_pretrained(tmp_path)
    for dtype, ulps in ((torch.float32, 2e-7), (torch.float16, 2e-3)):
        first, second = (AutoModelForCausalLM.from_pretrained(tiny.llama, dtype=dtype) for _ in range(2))
        theirs = PeftModel.from_pretrained(first, tmp_path).merge_and_unload().state_dict()
        ours = apply_lora(second, str(tmp_path), "base").state_dict()
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], atol=ulps / 2, rtol=ulps)


@pytest.mark.parametrize("bits", [4, 8])
def test_beside_quantised_weights(tiny, tmp_path, bits):
    """The adapter is not rounded away: what is loaded answers as peft does on the same quantised base."""
    pytest.importorskip("bitsandbytes")
    from peft import PeftModel

    from llava.model.lora_merge import read_trained_file
    from llava.model.quantization import quantization_config
    from llava.model.trained_weights import load_trained_weights
    from regap_patch.study.tiny import make_tiny_llama

    # On some CPUs bitsandbytes packs 4-bit weights, which asks for multiples of 32.
    base = make_tiny_llama(tmp_path / "base", tiny.root / "tokenizer", intermediate_size=128)
    model = make_model(tiny._replace(llama=base))
    folder = write(with_adapter(model), tmp_path / "lora", ["mm_projector"])
    _, loaded, _, _ = load(folder, base, torch_dtype=torch.float32, **{f"load_{bits}bit": True})
    kinds = {name: type(module).__name__ for name, module in loaded.named_modules()}
    assert kinds["model.layers.0.self_attn.q_proj"] == {4: "Linear4bit", 8: "Linear8bitLt"}[bits]
    plain = {name for name, kind in kinds.items() if kind == "Linear" and "layers" not in name}
    assert plain == {"lm_head", "model.mm_projector.0", "model.mm_projector.2"}

    from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM

    model = LlavaLlamaForCausalLM.from_pretrained(
        base,
        config=LlavaConfig.from_pretrained(folder),
        dtype=torch.float32,
        device_map={"": "cpu"},
        quantization_config=quantization_config(bits, torch.float32),
    )
    model.get_vision_tower().load_model()
    load_trained_weights(model, read_trained_file(str(folder / "non_lora_trainables.bin")), "file")
    expected = answer(PeftModel.from_pretrained(model, folder).eval())
    torch.testing.assert_close(answer(loaded), expected, atol=1e-4, rtol=0)


def test_without_peft(run, tiny, tmp_path, monkeypatch):
    """Plain LoRA needs nothing; what needs peft says so."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.llama, dtype=torch.float32)
    with_adapter(model, use_dora=True).save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)
    _, loaded, _, _ = load(run[0], torch_dtype=torch.float32)
    torch.testing.assert_close(answer(loaded), run[1], atol=1e-5, rtol=0)
    with pytest.raises(
        ImportError, match=r"is of a kind that only peft can merge \(use_dora=True\); install"
    ):
        load(tmp_path)


def test_a_configuration_that_upstreams_qlora_wrote(run, tmp_path):
    """It says how training held the base, whose own weights are whole."""
    held = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    folder = edited(run[0], tmp_path, "config.json", quantization_config=held)
    _, loaded, _, _ = load(folder, torch_dtype=torch.float32)
    torch.testing.assert_close(answer(loaded), run[1], atol=1e-5, rtol=0)


def edited(folder, tmp_path, file, **fields):
    copy = shutil.copytree(folder, tmp_path / "edited")
    config = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps({**config, **fields}))
    return copy


def test_without_its_base(run, tmp_path):
    for name, found in (
        (None, "names no base model; pass"),
        ("/no/such/vicuna", "(from adapter_config.json)"),
    ):
        folder = edited(run[0], tmp_path / str(found), "adapter_config.json", base_model_name_or_path=name)
        with pytest.raises(FileNotFoundError) as caught:
            load(folder)
        assert found in str(caught.value)
        assert "--model-base" in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"needs its base model 'no-one/vicuna', and no weights"):
        load(run[0], "no-one/vicuna")


def test_without_its_projector(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "lora")
    (folder / "non_lora_trainables.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"and no projector: neither it has non_lora_trainables.bin"):
        load(folder)


def test_of_another_model(run, tiny, tmp_path):
    """By the configuration where the folder has one, else by names and shapes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"vocab_size": 400, "intermediate_size": 176, "num_attention_heads": 4}
    sentences = {
        (1, 64): r"changes 2 modules that are not there \(model.layers.1",
        (2, 32): r"change of model.layers.0.* where the model has 32 x \d+; pass the right --model-base",
    }
    for (layers, width), sentence in sentences.items():
        base = tmp_path / f"base-{width}"
        config = LlamaConfig(num_hidden_layers=layers, hidden_size=width, **shape)
        LlamaForCausalLM(config).save_pretrained(base)
        for file in ("tokenizer.model", "tokenizer_config.json"):
            shutil.copy(tiny.llama / file, base / file)
        with pytest.raises(ValueError, match=r"another model than .*where it has .*; pass the right one as"):
            load(run[0], base)
        folder = shutil.copytree(run[0], tmp_path / f"run-{width}")
        (folder / "config.json").unlink()
        with pytest.raises(ValueError, match=sentence):
            load(folder, base)


def test_torn_adapters(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "lora")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"adapter_model.safetensors' is torn"):
        load(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"no adapter_model.safetensors; pass a folder whose saving"):
        load(folder)
    torch.save(
        {"base_model.model.model.layers.0.q.lora_A.weight": torch.ones(1)}, folder / "adapter_model.bin"
    )
    with pytest.raises(ValueError, match="only one of two factors for"):
        load(folder)
    (folder / "non_lora_trainables.bin").write_text("words")
    with pytest.raises(ValueError, match="cannot be read as a torch file of tensors"):
        load(folder)
    (folder / "adapter_config.json").write_text("words")
    with pytest.raises(ValueError, match="is not JSON"):
        load(folder)
