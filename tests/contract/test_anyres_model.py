"""A LLaVA that sees tiles: its newline is saved and read, batches equal their rows, bad input is named."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from tiny_llava import make_model, model_args

from llava.constants import IMAGE_TOKEN_INDEX as IMAGE
from llava.mm_utils import process_images

PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
GREEDY = {"max_new_tokens": 6, "do_sample": False}


def picture(width, height, seed=0):
    noise = torch.randint(0, 255, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


@pytest.fixture(scope="module")
def model(tiny):
    made = make_model(tiny, mm_patch_merge_type="spatial_unpad").eval()
    made.config.image_aspect_ratio, made.config.image_grid_pinpoints = "anyres", PINPOINTS
    return made


@pytest.fixture(scope="module")
def folder(model, tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("anyres") / "whole"
    model.save_pretrained(path)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        (path / name).write_bytes((tiny.llama / name).read_bytes())
    return path


def pixels(model, *pictures):
    return [
        process_images([one], model.get_vision_tower().image_processor, model.config)[0] for one in pictures
    ]


def load(folder, base=None):
    from llava.model.builder import load_pretrained_model

    return load_pretrained_model(str(folder), base, device="cpu", torch_dtype=torch.float32)[1]


def test_the_newline_follows_from_the_seed(tiny):
    made = dict.fromkeys((3, 4))
    for seed in (3, 3, 4):
        model = make_model(tiny)
        torch.manual_seed(seed)
        torch.rand(5)
        model.get_model().initialize_vision_modules(model_args(tiny, mm_patch_merge_type="spatial_unpad"))
        newline = model.model.image_newline
        assert newline.shape == (64,)
        assert newline.requires_grad
        assert 0.09 < newline.std() < 0.17, "one over the root of 64"
        assert made[seed] is None or torch.equal(made[seed], newline)
        made[seed] = newline
    assert not torch.equal(made[3], made[4])


def test_a_whole_checkpoint_holds_the_newline(model, folder):
    from llava.model.checkpoint_files import read_tensors

    assert torch.equal(read_tensors(folder, "model.image_newline")[""], model.model.image_newline)
    again = load(folder)
    assert torch.equal(again.model.image_newline, model.model.image_newline)
    images, ids = pixels(model, picture(100, 40)), torch.tensor([[1, IMAGE, 20]])
    with torch.no_grad():
        expected = model(ids, images=images, image_sizes=[(100, 40)]).logits
        assert torch.equal(again(ids, images=images, image_sizes=[(100, 40)]).logits, expected)


def test_a_projector_file_holds_the_newline(model, tiny, tmp_path, caplog):
    from llava.train.saved_files import adapter_state

    model.config.save_pretrained(tmp_path)
    state = adapter_state(model)
    assert sorted(state)[:2] == ["model.image_newline", "model.mm_projector.0.bias"]
    torch.save({**state, "model.image_newline": torch.full((64,), 0.5)}, tmp_path / "mm_projector.bin")
    assert (load(tmp_path, str(tiny.llama)).model.image_newline == 0.5).all()

    args = model_args(
        tiny,
        mm_patch_merge_type="spatial_unpad",
        pretrain_mm_mlp_adapter=str(tmp_path / "mm_projector.bin"),
    )
    other = make_model(tiny)
    other.get_model().initialize_vision_modules(args)
    assert (other.model.image_newline == 0.5).all()
    args.mm_patch_merge_type = "flat"
    other.get_model().initialize_vision_modules(args)
    assert not hasattr(other.model, "image_newline")
    assert "holds an image_newline, which is left aside" in caplog.text

    del state["model.image_newline"]
    torch.save(state, tmp_path / "mm_projector.bin")
    args.mm_patch_merge_type = "spatial_unpad"
    other.get_model().initialize_vision_modules(args)
    assert "holds no image_newline (upstream's stage 1 saves none): it keeps its random first" in caplog.text
    torch.save({**state, "model.image_newline": torch.ones(32)}, tmp_path / "mm_projector.bin")
    with pytest.raises(ValueError, match="an image_newline of 32 numbers, but the model wants 64"):
        other.get_model().initialize_vision_modules(args)


def test_a_newline_that_a_checkpoint_lacks_gets_a_first_value(model, tiny):
    """Parameters that are not in the file must not be what memory held."""
    from llava import LlavaLlamaForCausalLM

    loaded = LlavaLlamaForCausalLM.from_pretrained(str(tiny.llama), config=model.config)
    assert 0.09 < loaded.model.image_newline.std() < 0.17


def test_a_batch_of_tiles_equals_its_rows(model):
    """One, none, two, whole and in tiles; by forward and by generation."""
    pictures = [picture(64, 64), picture(30, 90, 1), picture(200, 50, 2), picture(56, 56, 3)]
    images, sizes = pixels(model, *pictures), [one.size for one in pictures]
    images[3] = images[3][:1]
    rows = [[1, IMAGE, 20, 21], [1, 30], [1, IMAGE, 7, IMAGE, 8], [1, 40, IMAGE]]
    shown = [[0], [], [1, 2], [3]]
    slots = [images[0], None, *images[1:]]
    slot_sizes = [sizes[0], None, *sizes[1:]]
    prompts = [torch.tensor(row) for row in rows]
    together = model.generate(prompts, images=slots, image_sizes=slot_sizes, **GREEDY)
    for number, row in enumerate(prompts):
        one = {
            "images": [images[i] for i in shown[number]] or None,
            "image_sizes": [sizes[i] for i in shown[number]] or None,
        }
        assert torch.equal(model.generate(row[None], **one, **GREEDY)[0], together[number])


def test_one_question_about_two_pictures_from_the_command_line(folder, tmp_path, capsys):
    """The sizes of the pictures reach the model: without them it refuses tiles."""
    from llava.eval.run_llava import eval_model, parser

    files = []
    for number, size in enumerate([(100, 40), (64, 64)]):
        files.append(str(tmp_path / f"{number}.png"))
        picture(*size, number).save(files[-1])
    flags = ["--model-path", str(folder), "--conv-mode", "v1", "--temperature", "0", "--max_new_tokens", "5"]
    flags += ["--device", "cpu", "--image-file", ",".join(files)]
    query = "Is <image-placeholder> like <image-placeholder>?"
    answer = eval_model(parser().parse_args([*flags, "--query", query]))
    assert capsys.readouterr().out == f"{answer}\n"
    with pytest.raises(ValueError, match="Prompt 1 of 1 has 1 <image> and 2 pictures"):
        eval_model(parser().parse_args([*flags, "--query", "Is <image-placeholder> red?"]))


def test_the_newline_gets_a_gradient_in_every_batch(tiny):
    model = make_model(tiny, mm_patch_merge_type="spatial_unpad").train().requires_grad_(False)
    model.config.image_aspect_ratio, model.config.image_grid_pinpoints = "anyres", PINPOINTS
    newline = model.model.image_newline.requires_grad_(True)
    ids = torch.tensor([[1, 20, 30]])
    model(ids, labels=ids, images=torch.zeros(1, 1, 3, 56, 56), image_sizes=[(56, 56)]).loss.backward()
    assert torch.equal(newline.grad, torch.zeros(64))
    images, ids = pixels(model, picture(64, 64)), torch.tensor([[1, IMAGE, 30]])
    model(ids, labels=ids.clamp(min=-100), images=images, image_sizes=[(64, 64)]).loss.backward()
    assert newline.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_grid_pinpoints": None}, "image_grid_pinpoints, the sizes to take, are missing; give them"),
        ({"image_grid_pinpoints": "(1x1)"}, "which is no list of sizes; write it as"),
        ({"image_aspect_ratio": "anyres_max_9"}, "a variant of LLaVA-NeXT that this version does not have"),
    ],
)
def test_an_anyres_configuration_that_lacks_something_is_named_when_it_is_loaded(
    folder, tmp_path, changes, sentence
):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ValueError, match=sentence):
        load(tmp_path)


def test_generation_names_a_configuration_without_pinpoints(model, monkeypatch):
    images = pixels(model, picture(64, 64))
    monkeypatch.setattr(model.config, "image_grid_pinpoints", None)
    with pytest.raises(ValueError, match="image_grid_pinpoints, the sizes to take, are missing"):
        pixels(model, picture(64, 64))
    with pytest.raises(ValueError, match="image_grid_pinpoints, the sizes to take, are missing"):
        model.generate(torch.tensor([[1, IMAGE]]), images=images, image_sizes=[(64, 64)], **GREEDY)


def test_tiles_without_their_sizes_are_named(model):
    with pytest.raises(ValueError, match="join by the images' original sizes, but none were given"):
        model(torch.tensor([[1, IMAGE]]), images=pixels(model, picture(64, 64)))


def test_a_processor_that_never_crops_has_tiles_too(model):
    """SigLIP's says its size as height and width."""
    transformers = pytest.importorskip("transformers")
    try:
        from transformers.models.siglip.image_processing_pil_siglip import (
            SiglipImageProcessorPil as Processor,
        )
    except ImportError:
        Processor = transformers.SiglipImageProcessor
    processor = Processor(size={"height": 56, "width": 56})
    tiles = process_images([picture(64, 64)], processor, model.config)
    assert tiles.shape == (1, 5, 3, 56, 56)
    whole = processor.preprocess(picture(64, 64), return_tensors="pt")["pixel_values"][0]
    assert (tiles[0, 0] - whole).abs().max() < 0.05, "tile 0 is the whole picture, stretched"
