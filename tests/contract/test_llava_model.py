"""A LLaVA of random weights: it computes, trains, generates, is saved and read as published models are."""

from __future__ import annotations

import copy
import json
import logging

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_llava import make_model, model_args

from llava.constants import IMAGE_TOKEN_INDEX

PATCHES = 16


def batch(seed=0):
    """One image, none, two: ids, mask, images with a dummy for the row without."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, 600, (3, 9), generator=generator)
    ids[:, 0] = 1
    ids[0, 3] = ids[2, 1] = ids[2, 5] = IMAGE_TOKEN_INDEX
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 6:] = False
    return ids, mask, torch.randn(4, 3, 56, 56, generator=generator)


def labels_of(ids, mask):
    return ids.masked_fill((ids == IMAGE_TOKEN_INDEX) | ~mask, -100)


def published_to_hf(tensors):
    """Published LLaVA names -> names of transformers' own LLaVA on the hub."""
    out = {}
    for key, value in tensors.items():
        if key.startswith("model.vision_tower."):
            out[key.removeprefix("model.vision_tower.")] = value
        elif key.startswith("model.mm_projector."):
            layer, rest = key.removeprefix("model.mm_projector.").split(".", 1)
            out[f"multi_modal_projector.linear_{1 + int(layer) // 2}.{rest}"] = value
        else:
            out[f"language_model.{key}"] = value
    return out


def test_transformers_own_llava_computes_the_same(llava_model, llava_folder, tmp_path):
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    vocabulary, placeholder = llava_model.config.vocab_size, llava_model.config.vocab_size - 1
    config = LlavaConfig(
        text_config={**llava_model.config.to_dict(), "model_type": "llama"},
        vision_config=llava_model.get_vision_tower().config.to_dict(),
        image_token_index=placeholder,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    config.save_pretrained(tmp_path)
    save_file(published_to_hf(load_file(llava_folder / "model.safetensors")), tmp_path / "model.safetensors")
    peer, report = LlavaForConditionalGeneration.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert peer.config.text_config.vocab_size == vocabulary

    ids, mask, images = batch()
    for row, pictures in ((0, images[:1]), (1, None), (2, images[2:])):
        real = ids[row, mask[row]]
        expanded = [
            x for i in real.tolist() for x in ([placeholder] * PATCHES if i == IMAGE_TOKEN_INDEX else [i])
        ]
        with torch.no_grad():
            mine = llava_model(real[None], images=pictures).logits
            theirs = peer(torch.tensor([expanded]), pixel_values=pictures).logits
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_a_padded_batch_equals_its_rows(llava_model):
    ids, mask, images = batch()
    with torch.no_grad():
        together = llava_model(ids, mask, images=images).logits
        for row, pictures in ((0, images[:1]), (1, None), (2, images[2:])):
            alone = llava_model(ids[row : row + 1, mask[row]], images=pictures).logits
            torch.testing.assert_close(together[row : row + 1, : alone.shape[1]], alone, atol=1e-5, rtol=0)


def test_a_list_with_none_for_the_text_row_equals_a_dummy(llava_model):
    ids, mask, images = batch()
    with torch.no_grad():
        expected = llava_model(ids, mask, images=images).logits
        got = llava_model(ids, mask, images=[images[0], None, images[2], images[3]]).logits
        text_only = llava_model(ids[1:2, :6], images=[None]).logits
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(text_only, expected[1:2, :6], atol=1e-5, rtol=0)


def test_tiles_of_an_image_follow_each_other(llava_model):
    ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, 20]])
    two = torch.tensor([[1, IMAGE_TOKEN_INDEX, IMAGE_TOKEN_INDEX, 20]])
    tiles = batch()[2][:2]
    with torch.no_grad():
        expected = llava_model(two, images=tiles).logits
        torch.testing.assert_close(llava_model(ids, images=[tiles]).logits, expected)
        torch.testing.assert_close(llava_model(ids, images=tiles[None]).logits, expected)


@pytest.mark.parametrize("checkpointing", [None, True, False])
def test_training_reaches_projector_and_language_model_but_not_the_tower(tiny, checkpointing):
    model = make_model(tiny).train()
    if checkpointing is not None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": checkpointing})
        model.enable_input_require_grads()
    ids, mask, images = batch()
    loss = model(ids, mask, labels=labels_of(ids, mask), images=images).loss
    loss.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert reached == {name for name, _ in model.named_parameters() if "vision_tower" not in name}
    assert not model.get_vision_tower().vision_tower.training
    if checkpointing is not None:
        plain = make_model(tiny).train()
        plain(ids, mask, labels=labels_of(ids, mask), images=images).loss.backward()
        for (name, a), (_, b) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
            if a.grad is not None:
                torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_stage_one_on_a_text_only_batch_still_touches_the_projector(tiny):
    """Every rank must run the same graph."""
    model = make_model(tiny).train().requires_grad_(False)
    model.model.mm_projector.requires_grad_(True)
    ids = torch.tensor([[1, 20, 30]])
    model(ids, labels=ids, images=torch.zeros(1, 3, 56, 56)).loss.backward()
    for parameter in model.model.mm_projector.parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_the_projector_runs_once_a_forward(llava_model):
    calls = []
    handle = llava_model.model.mm_projector.register_forward_hook(lambda *_: calls.append(1))
    ids, mask, images = batch()
    with torch.no_grad():
        llava_model(ids, mask, images=list(images))
        llava_model.generate(ids, images=images, attention_mask=mask, max_new_tokens=3, do_sample=False)
    handle.remove()
    assert len(calls) == 2


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_adds_nothing_to_loss_and_gradients(llava_model, monkeypatch, side):
    monkeypatch.setattr(llava_model.config, "tokenizer_padding_side", side, raising=False)
    ids, mask, images = batch()
    labels = labels_of(ids, mask)
    labels[:, 0] = -100  # nothing precedes it but padding on the left
    projector = llava_model.get_model().mm_projector

    def total(rows, kept, pictures):
        """Summed loss of some rows, and what it asks of the projector and of the word embeddings."""
        llava_model.zero_grad()
        loss = llava_model(
            ids[rows, kept],
            mask[rows, kept],
            labels=labels[rows, kept],
            images=pictures,
            num_items_in_batch=1,
        ).loss
        loss.backward()
        return [loss.detach(), projector[0].weight.grad.clone(), llava_model.lm_head.weight.grad.clone()]

    together = total(slice(None), slice(None), images)
    pictures = [images[:1], images[1:2], images[2:]]
    alone = [total(slice(row, row + 1), mask[row], pictures[row]) for row in range(3)]
    for got, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(got, sum(parts), atol=1e-4, rtol=1e-5)


def test_the_trainer_s_count_of_targets_divides_the_loss(llava_model):
    ids, mask, images = batch()
    labels = labels_of(ids, mask)
    with torch.no_grad():
        mean = llava_model(ids, mask, labels=labels, images=images).loss
        # Targets: supervised positions that something precedes, also after an image.
        targets = int((labels[:, 1:] != -100).sum())
        total = llava_model(ids, mask, labels=labels, images=images, num_items_in_batch=1).loss
        last = llava_model(ids, mask, images=images, logits_to_keep=1).logits
    torch.testing.assert_close(total / targets, mean)
    assert last.shape[1] == 1


def test_generating_a_batch_equals_generating_its_rows(llava_model):
    ids, mask, images = batch()
    greedy = {"max_new_tokens": 6, "do_sample": False}
    together = llava_model.generate(ids, images=images, attention_mask=mask, **greedy)
    ragged = llava_model.generate(
        [row[keep] for row, keep in zip(ids, mask, strict=True)], images=images, **greedy
    )
    assert torch.equal(together, ragged)
    assert together.shape == (3, 6), "new ids only"
    for row, pictures in ((0, images[:1]), (1, None), (2, images[2:])):
        alone = llava_model.generate(ids[row : row + 1, mask[row]], images=pictures, **greedy)
        assert torch.equal(alone[0], together[row])


def test_generating_ragged_text_needs_no_images(llava_model):
    ids, _, _ = batch()
    texts = [ids[1, :6], ids[1, :3]]
    together = llava_model.generate(texts, max_new_tokens=5, do_sample=False)
    for row, text in enumerate(texts):
        assert torch.equal(
            llava_model.generate(text[None], max_new_tokens=5, do_sample=False)[0], together[row]
        )


def test_greedy_ids_are_those_of_repeated_forwards(llava_model):
    """Generation with a cache against none."""
    ids, _, images = batch()
    prompt = ids[:1]
    generated = llava_model.generate(prompt, images=images[:1], max_new_tokens=4, do_sample=False)
    for _ in range(4):
        with torch.no_grad():
            following = llava_model(prompt, images=images[:1]).logits[:, -1].argmax(-1, keepdim=True)
        prompt = torch.cat([prompt, following], 1)
    assert torch.equal(generated[0], prompt[0, ids.shape[1] :])


def test_generate_refuses_what_it_would_make_itself(llava_model):
    with pytest.raises(NotImplementedError, match="pass token ids"):
        llava_model.generate(inputs_embeds=torch.zeros(1, 2, 64))
    with pytest.raises(ValueError, match="pass `inputs`"):
        llava_model.generate()


def test_placeholders_without_images_are_an_error(llava_model, tiny):
    from llava import LlavaLlamaForCausalLM

    ids, mask, _ = batch()
    with pytest.raises(ValueError, match="3 <image> placeholders but no images were given"):
        llava_model(ids, mask)
    blind = LlavaLlamaForCausalLM.from_pretrained(str(tiny.llama))
    with pytest.raises(ValueError, match="3 <image> placeholders but the model has no vision tower"):
        blind(ids, mask, images=batch()[2])


def test_rows_are_cut_at_the_model_s_length_with_one_warning(llava_model, caplog):
    short = copy.copy(llava_model)
    short.config = copy.copy(llava_model.config)
    short.config.tokenizer_model_max_length = 12
    ids, mask, images = batch()
    with caplog.at_level(logging.WARNING, logger="llava.model.llava_arch"), torch.no_grad():
        first = short(ids, mask, images=images)
        short(ids, mask, images=images)
    assert first.logits.shape[1] == 12
    assert [r.message.split(" are longer")[0] for r in caplog.records] == ["2 rows of this batch"]


def test_a_mask_comes_back_when_padding_was_added(llava_model):
    ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, 20], [1, 20, 30]])
    images = batch()[2][:2]
    prepare = llava_model.prepare_inputs_labels_for_multimodal
    _, positions, mask, _, embeds, labels = prepare(ids, None, None, None, None, images)
    assert mask.sum(1).tolist() == [PATCHES + 2, 3]
    assert positions is None
    assert labels is None
    assert embeds.shape == (2, PATCHES + 2, 64)
    _, positions, mask, _, _, _ = prepare(ids, torch.arange(3), torch.ones(2, 3), None, None, images)
    assert mask.dtype == torch.float32
    assert positions[1].tolist() == [0, 1, 2] + [0] * (PATCHES - 1)
    assert prepare(ids[:1], None, None, None, None, images[:1])[2] is None


def test_saved_files_have_published_names(llava_folder):
    config = json.loads((llava_folder / "config.json").read_text())
    assert config["architectures"] == ["LlavaLlamaForCausalLM"]
    assert config["model_type"] == "llava_llama"
    assert config["rope_theta"] == 10000.0
    assert config["rope_scaling"] is None
    assert config["torch_dtype"] == config["dtype"] == "float32"
    with safe_open(llava_folder / "model.safetensors", "pt") as file:
        keys = set(file.keys())
    tower = "model.vision_tower.vision_tower.vision_model."
    for key in ("embeddings.class_embedding", "pre_layrnorm.weight", "encoder.layers.0.mlp.fc1.bias"):
        assert tower + key in keys
    assert {"model.mm_projector.0.weight", "model.mm_projector.2.bias", "lm_head.weight"} <= keys
    assert not any("vision_tower" in key and not key.startswith(tower) for key in keys)


def test_generation_settings_that_transformers_refuses_do_not_stop_saving(tiny, tmp_path):
    model = make_model(tiny)
    model.generation_config.temperature, model.generation_config.top_p = 0.9, 0.6
    model.save_pretrained(tmp_path)
    assert model.generation_config.temperature == 0.9
    assert json.loads((tmp_path / "generation_config.json").read_text()).get("temperature") is None


def test_round_trip(llava_model, llava_folder, tiny):
    from transformers import AutoModelForCausalLM

    again = AutoModelForCausalLM.from_pretrained(llava_folder)
    again.get_model().initialize_vision_modules(model_args(tiny))
    ids, mask, images = batch()
    with torch.no_grad():
        assert torch.equal(
            again(ids, mask, images=images).logits, llava_model(ids, mask, images=images).logits
        )


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_tower_that_was_trained_is_restored(llava_folder, tiny, tmp_path, name):
    """Upstream silently goes back to the published tower."""
    from llava.model.builder import load_pretrained_model

    tensors = load_file(llava_folder / "model.safetensors")
    key = "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias"
    tensors[key] = tensors[key] + 1
    for file in llava_folder.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    if name.endswith(".bin"):
        torch.save(tensors, tmp_path / name)
    else:
        save_file(tensors, tmp_path / name, metadata={"format": "pt"})
    _, loaded, _, _ = load_pretrained_model(str(tmp_path), device="cpu")
    tower = loaded.get_vision_tower().vision_tower
    assert torch.equal(tower.encoder.layers[0].mlp.fc1.bias, tensors[key])


def test_a_rounded_copy_of_the_published_tower_is_left_aside(llava_model, tiny, tmp_path):
    from llava.model.builder import load_pretrained_model

    half = copy.deepcopy(llava_model).half()
    half.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes((tiny.llama / "tokenizer.model").read_bytes())
    _, loaded, _, _ = load_pretrained_model(str(tmp_path), device="cpu")
    expected = llava_model.get_vision_tower().state_dict()
    got = loaded.get_vision_tower().state_dict()
    assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_a_base_model_gets_an_initialised_projector(tiny, stage_one_folder):
    """Parameters that a checkpoint lacks must not be what memory held."""
    from llava import LlavaLlamaForCausalLM
    from llava.model import LlavaConfig

    config = LlavaConfig.from_pretrained(stage_one_folder)
    loaded = LlavaLlamaForCausalLM.from_pretrained(str(tiny.llama), config=config)
    for name, parameter in loaded.model.mm_projector.named_parameters():
        assert parameter.isfinite().all()
        assert parameter.abs().max() < 0.2, name


def test_an_existing_projector_keeps_its_type(llava_folder, tiny, caplog):
    from llava import LlavaLlamaForCausalLM

    loaded = LlavaLlamaForCausalLM.from_pretrained(llava_folder)
    loaded.model.mm_projector.requires_grad_(False)
    loaded.get_model().initialize_vision_modules(model_args(tiny, mm_projector_type="linear"))
    assert loaded.config.mm_projector_type == "mlp2x_gelu"
    assert "projector is mlp2x_gelu and stays so; linear was asked for" in caplog.text
    assert all(parameter.requires_grad for parameter in loaded.model.mm_projector.parameters())


def test_image_tokens_join_the_vocabulary(tiny, tmp_path):
    from llava.tokenization import load_tokenizer

    model, tokenizer = make_model(tiny), load_tokenizer(str(tiny.llama))
    before = model.get_input_embeddings().weight.detach().clone()
    args = model_args(tiny, mm_use_im_start_end=True, tune_mm_mlp_adapter=True)
    model.requires_grad_(False)
    model.initialize_vision_tokenizer(args, tokenizer)
    table = model.get_input_embeddings().weight
    assert len(tokenizer) == len(table) == len(before) + 2
    torch.testing.assert_close(table[-1], before.mean(0))
    assert table.requires_grad
    assert not model.get_output_embeddings().weight.requires_grad

    path = tmp_path / "mm_projector.bin"
    state = {f"model.mm_projector.{k}": v for k, v in model.model.mm_projector.state_dict().items()}
    torch.save({**state, "model.embed_tokens.weight": torch.ones(2, 64)}, path)
    other, tokenizer = make_model(tiny), load_tokenizer(str(tiny.llama))
    args.pretrain_mm_mlp_adapter = str(path)
    other.initialize_vision_tokenizer(args, tokenizer)
    assert torch.equal(other.get_input_embeddings().weight[-2:].detach(), torch.ones(2, 64))
    torch.save(state, path)
    other, tokenizer = make_model(tiny), load_tokenizer(str(tiny.llama))
    with pytest.raises(ValueError, match="holds no embeddings, but 2 added tokens"):
        other.initialize_vision_tokenizer(args, tokenizer)


@pytest.mark.parametrize("kind", ["linear", "mlp3x_gelu", "identity"])
def test_projector_types(tiny, kind):
    from llava.model.multimodal_projector.builder import projector_shape

    model = make_model(tiny, mm_projector_type=kind)  # both widths are 64, so identity fits too
    assert projector_shape(model.model.mm_projector.state_dict()).kind == kind
    with torch.no_grad():
        ids, mask, images = batch()
        assert model(ids, mask, images=images).logits.isfinite().all()


@pytest.mark.parametrize("layer", [-1, -2, 1, 0])
def test_the_selected_layer_is_transformers_own(llava_model, tiny, monkeypatch, layer):
    tower = llava_model.get_vision_tower()
    monkeypatch.setattr(tower, "select_layer", layer)
    images = batch()[2]
    with torch.no_grad():
        states = tower.vision_tower(images, output_hidden_states=True).hidden_states
    torch.testing.assert_close(tower(images), states[layer][:, 1:], atol=0, rtol=0)


def test_a_class_token_can_be_kept(tiny):
    model = make_model(tiny, mm_vision_select_feature="cls_patch")
    images = batch()[2]
    assert model.encode_images(images).shape == (4, PATCHES + 1, 64)
    model.get_vision_tower().select_feature = "cls"
    with pytest.raises(ValueError, match="mm_vision_select_feature is 'cls'"):
        model.encode_images(images)


def test_the_tower_s_attributes(llava_model, tiny):
    tower = llava_model.get_vision_tower()
    assert tower.is_loaded
    assert tower.vision_tower_name == str(tiny.clip)
    assert (tower.hidden_size, tower.num_patches, tower.num_patches_per_side) == (64, PATCHES, 4)
    assert tower.dummy_feature.shape == (1, 64)
    assert tower.dtype == torch.float32
    assert [f.shape for f in tower(list(batch()[2][:2]))] == [(1, PATCHES, 64)] * 2
    half = tower(batch()[2].half())
    assert half.dtype == torch.float16
    assert not half.requires_grad
