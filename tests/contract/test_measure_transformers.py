"""`regap mir` and `regap gap` on folders that transformers wrote: their own processors make the prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from regap_patch.cli import main
from regap_patch.gap import combine, layer_term
from regap_patch.measure.pairs import choose_pairs
from tests.contract.host_rows import BLIP_2, HF_LLAVA
from tests.contract.stored_states import hidden_states
from tests.contract.tiny_hosts import PATCH, QUERIES, SIDE, P, llava_configs


@pytest.fixture(scope="module")
def tokenizer(tiny):
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(str(tiny.llama))
    made.add_tokens(["<image>"], special_tokens=True)
    return made


@pytest.fixture(scope="module")
def image_processor():
    from transformers import CLIPImageProcessorPil

    size = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)


@pytest.fixture(scope="module")
def llava(tokenizer, image_processor, tmp_path_factory) -> Path:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    folder = tmp_path_factory.mktemp("hf") / "llava"
    configs = {**llava_configs(), "image_token_index": tokenizer.convert_tokens_to_ids("<image>")}
    configs["text_config"].vocab_size = len(tokenizer)
    configs["text_config"].max_position_embeddings = 512
    torch.manual_seed(0)
    LlavaForConditionalGeneration(LlavaConfig(**configs)).save_pretrained(folder)
    LlavaProcessor(
        image_processor, tokenizer, patch_size=PATCH, vision_feature_select_strategy="default",
        image_token="<image>", num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def blip(tokenizer, image_processor, tiny, tmp_path_factory) -> Path:
    from transformers import Blip2Processor

    folder = tmp_path_factory.mktemp("hf") / "blip"
    model = BLIP_2.build(tiny)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.image_token_index = tokenizer.convert_tokens_to_ids("<image>")
    model.config.text_config.max_position_embeddings = 256
    model.save_pretrained(folder)
    Blip2Processor(image_processor, tokenizer, num_query_tokens=QUERIES).save_pretrained(folder)
    return folder


def measured(folder: Path, tiny, tmp_path: Path, *flags: str) -> dict:
    words = ["mir", folder, "--images", tiny.world.images, "--texts", tiny.world.pretrain_json, "--pairs", 5]
    target = tmp_path / "mir.json"
    assert main([*map(str, (*words, "--device", "cpu", "--output_path", target, *flags))]) == 0
    return json.loads(target.read_text())


def by_hand(folder: Path, tiny, template: str, count: int) -> float:
    """MIR of the states that the model gives, positions counted from the placeholders."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    rows = []
    for pair in choose_pairs(tiny.world.images, tiny.world.pretrain_json, count=5).pairs:
        image = Image.open(pair.images[0]).convert("RGB")
        made = processor(images=[image], text=template.format(pair.text), return_tensors="pt")
        ids = made["input_ids"][0]
        shown = (ids == model.config.image_token_index).nonzero().flatten()
        assert len(shown) == count
        states = hidden_states(model, dict(made))
        rows.append([(state[0, shown], state[0, int(shown[-1]) + 1 :]) for state in states])
    terms = [layer_term(*([row[k][side] for row in rows] for side in (0, 1))) for k in range(len(rows[0]))]
    return combine(terms[1:]).value


def test_llava_in_transformers_format(llava: Path, tiny, tmp_path: Path):
    found = measured(llava, tiny, tmp_path)
    assert found["host"] == HF_LLAVA.host
    assert found["data"]["template"] == "USER: <image>\nASSISTANT: {text}"
    assert found["rows"]["image"] == 5 * P
    assert found["mir"]["value"] == by_hand(llava, tiny, "USER: <image>\nASSISTANT: {}", P)
    other = measured(llava, tiny, tmp_path, "--template", "<image> {text} End.")
    assert other["data"]["template"] == "<image> {text} End."
    assert other["mir"]["value"] == by_hand(llava, tiny, "<image> {} End.", P)


def test_blip_2_counts_its_queries(blip: Path, tiny, tmp_path: Path):
    found = measured(blip, tiny, tmp_path)
    assert found["host"] == BLIP_2.host
    assert found["data"]["template"] == "{text}"
    assert found["rows"]["image"] == 5 * QUERIES
    assert found["mir"]["value"] == by_hand(blip, tiny, "{}", QUERIES)


def test_gap_of_either(llava: Path, blip: Path, tiny, tmp_path: Path, capsys):
    words = ["gap", llava, blip, tiny.world.pretrain_json, "--image_folder", tiny.world.images, "--pairs", 4]
    assert main([*map(str, (*words, "--device", "cpu", "--output_path", tmp_path))]) == 0
    for folder, count in ((llava, P), (blip, QUERIES)):
        found = json.loads((tmp_path / f"{folder.name}.json").read_text())
        assert {sample["image_rows"] for sample in found["samples"]} == {count}


def test_a_template_needs_its_text(llava: Path, tiny, tmp_path: Path, capsys):
    words = ["mir", llava, "--images", tiny.world.images, "--texts", tiny.world.pretrain_json, "--pairs", 4]
    assert (
        main([*map(str, (*words, "--device", "cpu", "--template", "vicuna_v1", "--output_path", tmp_path))])
        == 1
    )
    assert "takes text with {text}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
