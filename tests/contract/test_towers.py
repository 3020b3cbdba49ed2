"""Vision towers: what they compute, that trained ones survive, and that they train when asked to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional

from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.multi_scale import multi_scale_features, parse_scales
from tests.contract.tiny_llava import make_model, model_args
from tests.contract.tiny_siglip import make_tiny_siglip

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

KINDS = ("clip", "s2", "siglip")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_siglip(tmp_path_factory.mktemp("towers") / "one", whole=False)


@pytest.fixture(scope="module")
def whole_siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_siglip(tmp_path_factory.mktemp("towers") / "two", whole=True)


def fields_of(kind: str, tiny: TinyAssets, siglip: Path) -> dict[str, Any]:
    return {
        "clip": {"vision_tower": str(tiny.clip)},
        "s2": {"vision_tower": str(tiny.clip), "s2": True, "s2_scales": "56,112"},
        "siglip": {"vision_tower": str(siglip)},
    }[kind]


def build(tiny: TinyAssets, **changed: Any) -> Any:
    return build_vision_tower(model_args(tiny, **changed))


def test_siglip_gives_all_tokens_of_a_layer(tiny: TinyAssets, siglip: Path):
    tower = build(tiny, vision_tower=str(siglip))
    images = torch.randn(2, 3, 56, 56)
    with torch.inference_mode():
        states = tower.vision_tower(images, output_hidden_states=True).hidden_states
        torch.testing.assert_close(tower(images), states[-2], atol=0, rtol=0)
        tower.select_layer = -1
        torch.testing.assert_close(tower(images), states[-1], atol=0, rtol=0)
    assert (tower.hidden_size, tower.num_patches, tower.num_patches_per_side) == (64, 16, 4)
    assert [features.shape for features in tower(list(images))] == [(1, 16, 64)] * 2
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    tower.select_feature = "cls_patch"
    with pytest.raises(ValueError, match="'cls_patch', and SigLIP has no class token; pass patch"):
        tower(images)


def test_a_whole_siglip_lends_its_vision_half(tiny: TinyAssets, siglip: Path, whole_siglip: Path):
    half, whole = (build(tiny, vision_tower=str(folder)) for folder in (siglip, whole_siglip))
    assert type(half) is type(whole)
    ours, theirs = (tower.vision_tower.state_dict() for tower in (half, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    delayed = build_vision_tower(model_args(tiny, vision_tower=str(whole_siglip)), delay_load=True)
    assert (delayed.hidden_size, delayed.num_patches, delayed.is_loaded) == (64, 16, False)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("google/siglip-so400m-patch14-384", "SigLipVisionTower"),
        ("timm/ViT-SO400M-14-SigLIP-384", "SigLipVisionTower"),
        ("openai/clip-vit-large-patch14-336", "CLIPVisionTower"),
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "CLIPVisionTower"),
        ("Lin-Chen/ShareGPT4V-13B_Pretrained_vit-large336-l12", "CLIPVisionTower"),
    ],
)
def test_names_on_the_hub(tiny: TinyAssets, name: str, kind: str, monkeypatch: pytest.MonkeyPatch):
    from llava.model.multimodal_encoder import tower

    asked = []
    monkeypatch.setattr(tower.VisionTower, "load_model", lambda self: asked.append(self.vision_tower_name))
    assert type(build(tiny, vision_tower=name)).__name__ == kind
    assert asked == [name]


def test_a_folder_is_what_its_configuration_says(tiny: TinyAssets, siglip: Path, tmp_path: Path):
    clip = tmp_path / "siglip-is-only-a-name"
    clip.symlink_to(tiny.clip)
    assert type(build(tiny, vision_tower=str(clip))).__name__ == "CLIPVisionTower"
    with pytest.raises(
        ValueError, match=r"several scales \(s2\) are for CLIP, and .* is a SigLIP; leave s2 out"
    ):
        build(tiny, vision_tower=str(siglip), s2=True)


def transcribed(look: Any, picture: torch.Tensor, scales: list[int]) -> torch.Tensor:
    """The published description step by step, for one picture (3, S, S): features (side * side, width)."""
    base, columns = scales[0], []
    for scale in scales:
        small = functional.interpolate(picture[None], size=(scale, scale), mode="bicubic")[0]
        rows = []
        for top in range(0, scale, base):
            row = []
            for left in range(0, scale, base):
                features = look(small[None, :, top : top + base, left : left + base])[0]
                row.append(features.reshape(4, 4, -1))
            rows.append(torch.cat(row, dim=1))
        plane = torch.cat(rows, dim=0)
        cell = plane.shape[0] // 4
        means = [
            plane[cell * i : cell * (i + 1), cell * j : cell * (j + 1)].mean((0, 1))
            for i in range(4)
            for j in range(4)
        ]
        columns.append(torch.stack(means))
    return torch.cat(columns, dim=1)


@pytest.mark.parametrize("scales", ["56,112", "56,112,168", "56"])
def test_several_scales(tiny: TinyAssets, scales: str):
    tower = build(tiny, s2=True, s2_scales=scales)
    plain = build(tiny)
    sides = [int(side) for side in scales.split(",")]
    images = torch.randn(2, 3, sides[-1], sides[-1])
    with torch.inference_mode():
        got = tower(images)
        expected = torch.stack([transcribed(plain, picture, sides) for picture in images])
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=1e-5)
    assert got.shape == (2, 16, 64 * len(sides)) == (2, tower.num_patches, tower.hidden_size)
    assert tower.image_processor.crop_size == {"height": sides[-1], "width": sides[-1]}
    if len(sides) == 1:
        torch.testing.assert_close(got, plain(images))
    half = tower(images.half())
    assert half.dtype == torch.float16


def test_squares_keep_their_places():
    """Features that are the pixels themselves come back as the picture, averaged."""
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)
    got = multi_scale_features(lambda squares: squares.flatten(2).transpose(1, 2), images, [4, 8])
    assert got.shape == (2, 16, 6)
    averaged = functional.avg_pool2d(images, 2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(got[..., 3:], averaged)


@pytest.mark.parametrize("scales", ["", "a,b", "112,224", "56,100", "28,56"])
def test_scales_that_cannot_be(scales: str):
    with pytest.raises(
        ValueError, match="the tower looks at squares of 56 pixels; pass 56 and multiples of it"
    ):
        parse_scales(scales, 56)


def test_scales_are_sorted():
    assert parse_scales([112, 56], 56) == [56, 112]


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_tower_survives(tiny: TinyAssets, siglip: Path, kind: str, tmp_path: Path):
    """Saved, loaded for answers, and loaded to train on; with names that published files have."""
    from llava.model.builder import load_pretrained_model
    from llava.tokenization import load_tokenizer

    asked = fields_of(kind, tiny, siglip)
    model = make_model(tiny, **asked)
    tower = model.get_vision_tower()
    side = 112 if kind == "s2" else 56
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        before = tower(images)
        for parameter in tower.vision_tower.encoder.layers[0].mlp.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        changed = tower(images)
    assert not torch.allclose(before, changed)
    model.save_pretrained(tmp_path / "saved")
    load_tokenizer(str(tiny.llama)).save_pretrained(tmp_path / "saved")

    from safetensors import safe_open

    with safe_open(tmp_path / "saved/model.safetensors", framework="pt") as file:
        towers = {key for key in file.keys() if "vision_tower" in key}  # noqa: SIM118
    assert len(towers) == len(tower.vision_tower.state_dict())
    assert all(key.startswith("model.vision_tower.vision_tower.vision_model.") for key in towers)
    _, loaded, processor, _ = load_pretrained_model(
        str(tmp_path / "saved"), device="cpu", torch_dtype=torch.float32
    )
    assert torch.equal(loaded.get_vision_tower()(images), changed)
    assert type(loaded.get_vision_tower()) is type(tower)
    assert processor.size == tower.image_processor.size
    again = type(model).from_pretrained(str(tmp_path / "saved"), dtype=torch.float32)
    again.get_model().initialize_vision_modules(model_args(tiny, **asked))
    assert torch.equal(again.get_vision_tower()(images), changed)
    prompt = torch.tensor([[1, 300, -200, 310]])
    with torch.inference_mode():
        assert torch.equal(model(prompt, images=images).logits, loaded(prompt, images=images).logits)
        assert loaded.generate(prompt, images=images, max_new_tokens=2, do_sample=False).shape == (1, 2)


def test_the_tower_folder_of_another_run(tiny: TinyAssets, tmp_path: Path):
    """ShareGPT4V leaves the tower that it trained in a folder of its own, for `--vision_tower`."""
    from llava.model.published_names import published_state_dict

    folder = tmp_path / "vision_tower"
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text((tiny.clip / name).read_text())
    tower = build(tiny)
    tensors = published_state_dict(tower.vision_tower.state_dict())
    tensors = {key: tensor + 0.01 for key, tensor in tensors.items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    loaded = build(tiny, vision_tower=str(folder)).vision_tower.state_dict()
    assert all(
        torch.equal(tensor, loaded[key.removeprefix("vision_model.")]) for key, tensor in tensors.items()
    )


def test_another_tower_under_a_projector_is_refused(tiny: TinyAssets):
    model = make_model(tiny)
    with pytest.raises(
        ValueError, match=r"projector takes features of width 64, and those of the tower .* 128 wide"
    ):
        model.get_model().initialize_vision_modules(model_args(tiny, s2=True, s2_scales="56,112"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unfrozen_tower_gets_gradients(tiny: TinyAssets, siglip: Path, kind: str):
    model = make_model(tiny, **fields_of(kind, tiny, siglip))
    tower = model.get_vision_tower()
    side = 112 if kind == "s2" else 56
    ids = torch.tensor([[1, 300, -200, 310, 311]])
    labels = torch.where(ids > 300, ids, -100)
    images = torch.randn(1, 3, side, side)
    model.train()
    assert not tower.vision_tower.training
    model(ids, labels=labels, images=images).loss.backward()
    assert all(parameter.grad is None for parameter in tower.parameters())
    tower.unfreeze()
    model.train()
    assert tower.vision_tower.training
    model(ids, labels=labels, images=images).loss.backward()
    names = dict(tower.vision_tower.named_parameters())
    trained = {name for name, parameter in names.items() if parameter.requires_grad}
    assert all(names[name].grad.abs().sum() > 0 for name in trained if not name.endswith("k_proj.bias"))
    # The layer above the selected one, and what comes after all layers, are for nobody.
    unused = {name for name in names if name.startswith(("encoder.layers.2.", "post_layernorm.", "head."))}
    assert trained == names.keys() - unused


def trained_tower(tiny: TinyAssets, folder: Path, **changes: Any) -> dict[str, Any]:
    from llava import conversation
    from llava.train.train import train
    from tests.integration.mini_run import flags

    template = conversation.default_conversation
    common = {
        "unfreeze_mm_vision_tower": True,
        "max_steps": 2,
        "save_strategy": "no",
        "image_aspect_ratio": "pad",
    }
    try:
        train(argv=flags(tiny, 2, folder, **(common | changes)))
    finally:
        conversation.default_conversation = template
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_trained_by_the_command(tiny: TinyAssets, siglip: Path, kind: str, tmp_path: Path):
    from llava.model.builder import load_pretrained_model

    asked = fields_of(kind, tiny, siglip)
    checkpointing = kind == "clip"
    config = trained_tower(
        tiny, tmp_path / "out", **asked, mm_vision_tower_lr=1e-3, gradient_checkpointing=checkpointing
    )
    assert config["unfreeze_mm_vision_tower"] is True
    assert config["mm_vision_tower_lr"] == 1e-3
    assert (config.get("s2", False), config.get("s2_scales")) == (
        asked.get("s2", False),
        asked.get("s2_scales"),
    )
    _, model, _, _ = load_pretrained_model(str(tmp_path / "out"), device="cpu", torch_dtype=torch.float32)
    published = build(tiny, **asked).vision_tower.state_dict()
    moved = {
        name
        for name, tensor in model.get_vision_tower().vision_tower.state_dict().items()
        if not torch.equal(tensor, published[name])
    }
    assert any(name.startswith("embeddings.") for name in moved)
    assert any(name.startswith("encoder.layers.1.") for name in moved)
    assert not any(name.startswith(("encoder.layers.2.", "post_layernorm", "head")) for name in moved)


def test_a_resumed_run_goes_on_with_its_tower(tiny: TinyAssets, tmp_path: Path):
    """To the last bit, as every other run."""
    from tests.integration.mini_run import digest

    asked = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "mm_vision_tower_lr": 1e-3}
    trained_tower(tiny, tmp_path / "whole", **asked)
    shutil.copytree(tmp_path / "whole/checkpoint-2", tmp_path / "resumed/checkpoint-2")
    assert digest(tmp_path / "whole/checkpoint-2") != digest(tmp_path / "whole")
    trained_tower(tiny, tmp_path / "resumed", **asked)
    assert digest(tmp_path / "resumed") == digest(tmp_path / "whole")


def test_trained_beside_adapters(tiny: TinyAssets, tmp_path: Path):
    from llava.model.builder import load_pretrained_model

    pytest.importorskip("peft")
    trained_tower(tiny, tmp_path / "out", lora_enable=True, lora_r=2, mm_vision_tower_lr=1e-2)
    _, model, _, _ = load_pretrained_model(str(tmp_path / "out"), device="cpu", torch_dtype=torch.float32)
    published = build(tiny).vision_tower.state_dict()
    loaded = model.get_vision_tower().vision_tower.state_dict()
    assert not torch.equal(
        loaded["encoder.layers.0.mlp.fc1.weight"], published["encoder.layers.0.mlp.fc1.weight"]
    )
    saved = torch.load(tmp_path / "out/non_lora_trainables.bin", weights_only=True)
    key = "base_model.model.model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(loaded["encoder.layers.0.mlp.fc1.weight"], saved[key])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mm_vision_tower_lr": 1e-3}, "--mm_vision_tower_lr 0.001 is the rate of a tower that is frozen"),
        (
            {"unfreeze_mm_vision_tower": True, "tune_mm_mlp_adapter": True},
            "--unfreeze_mm_vision_tower True trains the tower, but --tune_mm_mlp_adapter True trains the",
        ),
        (
            {"unfreeze_mm_vision_tower": True, "vision_tower": None},
            "--unfreeze_mm_vision_tower True trains the tower, but no --vision_tower is given; drop one",
        ),
    ],
)
def test_flags_that_rule_each_other_out(changes: dict[str, Any], sentence: str):
    from llava.train.train import choose_what_trains

    model_fields = {"unfreeze_mm_vision_tower": False, "tune_mm_mlp_adapter": False, "vision_tower": "there"}
    training = SimpleNamespace(
        mm_vision_tower_lr=changes.get("mm_vision_tower_lr"), fsdp="", lora_enable=False
    )
    with pytest.raises(ValueError, match=sentence):
        choose_what_trains(None, SimpleNamespace(**(model_fields | changes)), training)


def test_the_tower_has_a_rate_of_its_own(tiny: TinyAssets):
    from llava.train.llava_trainer import optimizer_groups

    model = make_model(tiny)
    model.requires_grad_(True)
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = optimizer_groups(model, 0.1, projector_lr=1e-3, tower_lr=1e-5)
    assert [(group.get("lr"), group["weight_decay"]) for group in groups] == [
        (None, 0.1), (None, 0.0), (1e-3, 0.1), (1e-3, 0.0), (1e-5, 0.1), (1e-5, 0.0),
    ]  # fmt: skip
    parts = [{named[id(parameter)].split(".")[1] for parameter in group["params"]} for group in groups]
    assert parts[4:] == [{"vision_tower"}] * 2
    assert not any("vision_tower" in part for part in parts[:4])
    assert sum(len(group["params"]) for group in groups) == len(named)
    together = optimizer_groups(model, 0.1, tower_lr=1e-5)
    assert len(together) == 4
