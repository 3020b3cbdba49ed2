"""LoRA on a language model held in 4 or 8 bits: it learns, and what is loaded again is what was trained."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.integration.mini_run import LORA, digest, flags, losses

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install '.[quant]'")
STEPS = 24


class Trained(NamedTuple):
    """A finished run, with the very model that it trained."""

    bits: int
    folder: Path
    model: Any


def make_base(path: Path, tokenizer: Path) -> None:
    """A tiny language model whose output layer, which adapters leave alone, can tell tokens apart.

    A random one of this width cannot: it is scaled up.
    """
    from regap_patch.study.tiny import make_tiny_llama

    make_tiny_llama(path, tokenizer)
    tensors = load_file(path / "model.safetensors")
    tensors["lm_head.weight"] *= 8
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module", params=[4, 8], ids=["4bit", "8bit"])
def trained(request: pytest.FixtureRequest, tiny, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    from llava.train import train as training

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("qlora")
    folder, base = root / "llava-lora", root / "llama"
    make_base(base, tiny.root / "tokenizer")
    save, kept = training.safe_save_model_for_hf_trainer, []

    def save_and_keep(trainer: Any, output_dir: str) -> None:
        save(trainer, output_dir)
        kept.append(trainer.model)

    with mock.patch.object(training, "safe_save_model_for_hf_trainer", save_and_keep):
        changes = LORA | {"model_name_or_path": base, "bits": request.param, "learning_rate": 1e-2}
        training.train(argv=flags(tiny, 2, folder, max_steps=STEPS, **changes))
    return Trained(request.param, folder, kept[0].eval())


@pytest.fixture(scope="module")
def reloaded(trained: Trained) -> tuple[Any, Any, Any]:
    """Tokenizer, model and image processor of the folder, by its name alone."""
    from llava.mm_utils import get_model_name_from_path
    from llava.model.builder import load_pretrained_model

    path = str(trained.folder)
    how = {"load_4bit": trained.bits == 4, "load_8bit": trained.bits == 8}
    name = get_model_name_from_path(path)
    return load_pretrained_model(path, None, name, device="cpu", torch_dtype=torch.float32, **how)[:3]


def quantised_layers(model: torch.nn.Module) -> set[str]:
    return {name for name, part in model.named_modules() if type(part).__module__.startswith("bitsandbytes")}


def test_the_language_model_alone_is_quantised(trained: Trained):
    names = quantised_layers(trained.model.get_base_model())
    assert names
    assert all(".layers." in name for name in names)
    assert not any("mm_projector" in name or "vision_tower" in name for name in names)


def test_loss_falls_by_a_tenth(trained: Trained):
    seen = losses(trained.folder)
    assert len(seen) == STEPS
    assert statistics.mean(seen[-4:]) < 0.9 * statistics.mean(seen[:4])


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_resumed_run_ends_like_one_in_one_go(tiny, tmp_path: Path, bits: int):
    from llava.train.train import train

    folder = tmp_path / "llava-lora"
    argv = flags(tiny, 2, folder, save_strategy="steps", save_steps=2, **(LORA | {"bits": bits}))
    train(argv=argv)
    whole = digest(folder)
    shutil.rmtree(folder / "checkpoint-4")
    for name in ("adapter_model.safetensors", "non_lora_trainables.bin"):
        (folder / name).unlink()
    train(argv=argv)
    assert digest(folder) == whole


def prompts(tiny, tokenizer: Any, processor: Any, config: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    from PIL import Image

    from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
    from llava.conversation import conv_templates
    from llava.mm_utils import process_images, tokenizer_image_token

    made = []
    for line in tiny.world.questions.read_text().splitlines()[:4]:
        question = json.loads(line)
        talk = conv_templates["v1"].copy()
        talk.append_message(talk.roles[0], f"{DEFAULT_IMAGE_TOKEN}\n{question['text']}")
        talk.append_message(talk.roles[1], None)
        ids = tokenizer_image_token(talk.get_prompt(), tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")
        with Image.open(tiny.world.images / question["image"]) as picture:
            images = process_images([picture.convert("RGB")], processor, config)
        made.append((ids[None], images))
    return made


def test_what_is_loaded_is_what_was_trained(tiny, trained: Trained, reloaded):
    tokenizer, model, processor = reloaded
    assert quantised_layers(model) == {
        name.removesuffix(".base_layer") for name in quantised_layers(trained.model.get_base_model())
    }
    for ids, images in prompts(tiny, tokenizer, processor, model.config):
        with torch.inference_mode():
            expected = trained.model(input_ids=ids, images=images).logits
            found = model(ids, images=images).logits
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_answers_hold_a_token_that_says_something(tiny, trained: Trained, reloaded):
    tokenizer, model, processor = reloaded
    for ids, images in prompts(tiny, tokenizer, processor, model.config):
        answer = model.generate(ids, images=images, do_sample=False, max_new_tokens=8)[0]
        assert set(answer.tolist()) - set(tokenizer.all_special_ids)
