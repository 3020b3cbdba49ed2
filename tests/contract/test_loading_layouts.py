"""Layouts that other programs leave, folders with something missing: what loads, and what refusals say."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llava import make_model

from llava.constants import IMAGE_TOKEN_INDEX

QUESTION = torch.tensor([[1, 20, IMAGE_TOKEN_INDEX, 30]])
PICTURE = torch.linspace(-1, 1, 3 * 56 * 56).view(1, 3, 56, 56)


def load(path, base=None, **kwargs):
    from llava.model.builder import load_pretrained_model

    kwargs = {"device": "cpu", "torch_dtype": torch.float32, **kwargs}
    return load_pretrained_model(str(path), None if base is None else str(base), **kwargs)


@torch.no_grad()
def answer(model):
    return model(QUESTION, images=PICTURE).logits


def with_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text()) | fields
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


@pytest.fixture
def copy(llava_folder, tmp_path):
    return shutil.copytree(llava_folder, tmp_path / "copy")


def test_sharegpt4v_with_its_tower_beside(llava_folder, copy, tiny):
    """Its tower is a folder in the checkpoint, and is not in the main weights."""
    from llava.model.published_names import published_state_dict

    whole = load_file(llava_folder / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in whole.items() if "vision_tower" not in name},
        copy / "model.safetensors",
        metadata={"format": "pt"},
    )
    tower = shutil.copytree(tiny.clip, copy / "vision_tower")
    trained = {name: tensor + 0.05 for name, tensor in load_file(tower / "model.safetensors").items()}
    (tower / "model.safetensors").unlink()
    torch.save(published_state_dict(trained), tower / "pytorch_model.bin")
    with_config(copy, model_type="share4v", mm_vision_tower="/where/it/was/trained/vision_tower")

    expected = make_model(tiny).eval()
    expected.get_vision_tower().vision_tower.load_state_dict(
        {name.removeprefix("vision_model."): tensor for name, tensor in trained.items()}
    )
    _, loaded, processor, _ = load(copy)
    torch.testing.assert_close(answer(loaded), answer(expected))
    assert processor is not None
    assert (answer(loaded) - answer(make_model(tiny).eval())).abs().max() > 0.01


@pytest.mark.parametrize("text", ['{"model_type": "lla', "[]", ""])
def test_a_torn_configuration_is_named(copy, text):
    (copy / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"copy/config.json' is .*; copy the checkpoint again\.$"):
        load(copy)


def test_a_model_that_does_not_fit_into_memory(llava_folder, llava_model, stage_one_folder, tiny, tmp_path):
    """Transformers leaves weights on the disk, where nothing can be copied to."""
    from llava.model.trained_weights import load_trained_weights

    parts = [f"model.{name}" for name in ("embed_tokens", "layers", "norm", "rotary_emb", "vision_tower")]
    placed = {**dict.fromkeys([*parts, "lm_head"], "cpu"), "model.mm_projector": "disk"}
    where = {"device": "cuda", "device_map": placed, "offload_folder": tmp_path / "aside"}
    _, loaded, _, _ = load(llava_folder, **where)
    torch.testing.assert_close(answer(loaded), answer(llava_model))
    with pytest.raises(ValueError, match=r"not fit into the device's memory as a whole.*pass device='cpu'"):
        load(stage_one_folder, tiny.llama, **where)
    bias = {"model.mm_projector.0.bias": llava_model.model.mm_projector[0].bias}
    with pytest.raises(ValueError, match="not fit into the device's memory as a whole"):
        load_trained_weights(loaded, bias, "a LoRA folder")
    tower = loaded.get_vision_tower()
    tower.is_loaded = False
    with pytest.raises(ValueError, match="not fit into the device's memory as a whole"):
        tower.load_model(
            {**dict.fromkeys(("embeddings", "pre_layrnorm", "encoder"), "cpu"), "post_layernorm": "disk"}
        )


def test_the_first_version(tiny, tmp_path):
    """A LLaMA's own type, a linear projector that the configuration does not name, rope in old fields."""
    model = make_model(tiny, mm_projector_type="linear").eval()
    folder = tmp_path / "first"
    model.save_pretrained(folder)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(tiny.llama / name, folder)
    with_config(
        folder,
        model_type="llama",
        architectures=["LlamaForCausalLM"],
        mm_projector_type=None,
        mm_patch_merge_type=None,
        rope_parameters=None,
        dtype=None,
    )
    _, loaded, _, _ = load(folder)
    torch.testing.assert_close(answer(loaded), answer(model))


def test_mistral(tiny, tmp_path):
    from tiny_llava import model_args
    from transformers import MistralConfig

    from llava.model.language_model.llava_mistral import LlavaMistralConfig, LlavaMistralForCausalLM

    shape = json.loads((tiny.llama / "config.json").read_text())
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = MistralConfig(**{name: shape[name] for name in kept}, num_key_value_heads=2, sliding_window=None)
    torch.manual_seed(0)
    model = LlavaMistralForCausalLM(LlavaMistralConfig(**config.to_dict() | {"model_type": "llava_mistral"}))
    model.get_model().initialize_vision_modules(model_args(tiny))
    model.config.mm_use_im_patch_token = False
    model.eval().save_pretrained(tmp_path)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(tiny.llama / name, tmp_path)
    _, loaded, _, _ = load(tmp_path)
    assert type(loaded).__name__ == "LlavaMistralForCausalLM"
    torch.testing.assert_close(answer(loaded), answer(model))


def test_names_on_the_hub(llava_folder, tiny, tmp_path, monkeypatch):
    """An adapter whose base is a hub name, both in the hub's cache; nothing is asked of the network."""
    from lora_folders import with_adapter, write

    adapted = with_adapter(make_model(tiny))
    folder = write(adapted, tmp_path / "lora", ["mm_projector"])
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "some-one/base"
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    for name, source in (("adapter", folder), ("base", tiny.llama), ("whole", llava_folder)):
        repository = tmp_path / "cache" / f"models--some-one--{name}"
        shutil.copytree(source, repository / "snapshots" / "0")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    _, loaded, _, _ = load("some-one/adapter")
    torch.testing.assert_close(answer(loaded), answer(adapted), atol=1e-5, rtol=0)
    torch.testing.assert_close(answer(load("some-one/whole")[1]), answer(make_model(tiny).eval()))
    shutil.rmtree(tmp_path / "cache" / "models--some-one--base")
    with pytest.raises(
        FileNotFoundError, match=r"needs its base model 'some-one/base' \(from adapter_config"
    ):
        load("some-one/adapter")


def test_a_missing_shard(copy):
    tensors = load_file(copy / "model.safetensors")
    places = dict.fromkeys(tensors, "model-00001-of-00002.safetensors")
    places["lm_head.weight"] = "model-00002-of-00002.safetensors"
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": places}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError) as caught:
        load(copy)
    assert str(caught.value) == (
        f"'{copy}' lacks 1 of 2 weight files (model-00002-of-00002.safetensors), which "
        "model.safetensors.index.json names; copy the whole folder again."
    )


@pytest.mark.parametrize("kept", [4, 200, -100])
def test_a_torn_weight_file(copy, kept):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"The weight file '{file}' is torn: it has \d+ bytes, fewer than"):
        load(copy)


def test_a_torn_torch_file(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    assert load(copy)[1] is not None
    file = copy / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"pytorch_model.bin' is torn"):
        load(copy)


def test_weights_that_lack_tensors(copy):
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 1 tensors of the model .* \(model.layers.1.mlp.up_proj"):
        load(copy)


def test_tiles_without_their_shapes(copy):
    with_config(copy, image_aspect_ratio="anyres", mm_patch_merge_type="spatial", image_grid_pinpoints=None)
    with pytest.raises(ValueError, match="image_grid_pinpoints"):
        load(copy)


def test_a_projector_for_another_model(stage_one_folder, tiny, tmp_path):
    folder = with_config(shutil.copytree(stage_one_folder, tmp_path / "stage"), hidden_size=4096)
    with pytest.raises(
        ValueError, match=r"trained on another model than .* \(hidden_size 4096 where it has 64\)"
    ):
        load(folder, tiny.llama)
    with pytest.raises(FileNotFoundError, match=r"The projector in '.*' needs its base model '/no/such'"):
        load(folder, "/no/such")


@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_quantised_and_what_is_not(llava_folder, tmp_path, bits):
    pytest.importorskip("bitsandbytes")
    flags = {f"load_{bits}bit": True}
    tokenizer, loaded, _, _ = load(llava_folder, torch_dtype=None, **flags)
    small = {4: "Linear4bit", 8: "Linear8bitLt"}[bits]
    kinds = {
        name: type(module).__name__
        for name, module in loaded.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert {name for name, kind in kinds.items() if kind == small} == {
        name for name in kinds if name.startswith("model.layers.")
    }
    assert {"lm_head", "model.mm_projector.0", "model.mm_projector.2"} <= kinds.keys()
    assert loaded.dtype == loaded.model.mm_projector[0].weight.dtype == torch.float16

    folder = tmp_path / "small"
    loaded.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    again = load(folder, torch_dtype=None)[1]
    assert type(again.model.layers[0].mlp.up_proj).__name__ == small, "as it was saved"
    for asked in ("load_4bit", "load_8bit"):
        with pytest.raises(
            ValueError, match=r"is quantised already \(bitsandbytes\); load it without load_4bit"
        ):
            load(folder, **{asked: True})
