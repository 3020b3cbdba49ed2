"""Training on tiles and on several images per sample: the newline learns, is kept, and resumes."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.integration.mini_run import LORA, TILES, digest, flags, history, launch, losses, weights

pytestmark = pytest.mark.filterwarnings("ignore:'llava.train.train' found in sys.modules:RuntimeWarning")
SMALL_STEPS = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
KEY = "model.image_newline"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """Pictures of several shapes; captions for stage 1, talks about one, two and no picture for stage 2."""
    folder = tmp_path_factory.mktemp("shapes")
    draw = random.Random(0)
    names = []
    for number, size in enumerate([(64, 64), (150, 50), (40, 90), (56, 56), (120, 130), (30, 20)]):
        names.append(f"{number}.png")
        Image.effect_noise(size, draw.randint(20, 90)).convert("RGB").save(folder / names[-1])

    def sample(images: list[str], *said: str) -> dict[str, Any]:
        turns = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(said)]
        shown = {"image": images if len(images) > 1 else images[0]} if images else {}
        return {"id": " ".join(images), "conversations": turns, **shown}

    captions = [sample([name], "<image>", "a red ring and a circle") for name in names * 2]
    captions += [sample(names[:2], "<image><image>", "two rings")] * 2
    talks = [
        sample([a, b], "<image> or <image>", "left", "why", "it is red") for a, b in itertools.pairwise(names)
    ]
    talks += [sample([name], "<image>\nwhat", "a ring") for name in names] + [sample([], "who", "me")] * 5
    made = {}
    for stage, samples in ((1, captions), (2, talks)):
        path = folder / f"{stage}.json"
        path.write_text(json.dumps(samples))
        made[stage] = {
            "data_path": path,
            "image_folder": folder,
            "validate_data": True,
            **TILES,
            **SMALL_STEPS,
        }
    return made


@pytest.fixture(scope="module")
def stage_1(tiny, data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from llava.train.train import train

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("stage1") / "llava"
    train(argv=flags(tiny, 1, folder, save_strategy="steps", save_steps=2, **data[1]))
    return folder


def test_stage_1_trains_and_saves_the_newline(stage_1: Path):
    first = torch.randn(64, generator=torch.Generator().manual_seed(42)) / 8  # --seed is 42
    after_2, after_4 = weights(stage_1 / "checkpoint-2")[KEY], weights(stage_1)[KEY]
    assert torch.equal(weights(stage_1 / "checkpoint-4")[KEY], after_4)
    assert 0 < (after_2 - first).abs().max() < 0.05
    assert not torch.equal(after_2, after_4)
    config = json.loads((stage_1 / "config.json").read_text())
    assert config["image_aspect_ratio"] == "anyres"
    assert config["image_grid_pinpoints"] == json.loads(TILES["image_grid_pinpoints"])
    assert config["mm_patch_merge_type"] == "spatial_unpad"


def test_a_stopped_run_resumes_with_its_newline(tiny, data, stage_1: Path):
    from llava.train.train import train

    before, logged = digest(stage_1), losses(stage_1)
    (stage_1 / "mm_projector.bin").unlink()
    shutil.rmtree(stage_1 / "checkpoint-4")
    train(argv=flags(tiny, 1, stage_1, save_strategy="steps", save_steps=2, **data[1]))
    assert (digest(stage_1), losses(stage_1)) == (before, logged)


@pytest.mark.parametrize("changes", [{}, LORA], ids=["whole", "lora"])
def test_stage_2_goes_on_from_it_and_its_folder_is_complete(
    tiny, data, stage_1: Path, tmp_path: Path, changes: dict[str, Any]
):
    from llava.model.builder import load_pretrained_model
    from llava.train.train import train

    folder = tmp_path / "llava-stage2"
    start = stage_1 / "mm_projector.bin"
    argv = flags(tiny, 2, folder, pretrain_mm_mlp_adapter=start, max_steps=3, **data[2] | changes)
    train(argv=argv)
    assert len(losses(folder)) == 3
    (saved,) = (tensor for name, tensor in weights(folder).items() if name.endswith(KEY))
    moved = (saved - weights(stage_1)[KEY]).abs().max()
    assert 0 < moved < 0.05
    base = str(tiny.llama) if changes else None
    model = load_pretrained_model(str(folder), base, device="cpu", torch_dtype=torch.float32)[1]
    assert torch.equal(model.model.image_newline, saved)


def test_a_frozen_projector_freezes_the_newline(tiny, data, stage_1: Path, tmp_path: Path):
    from llava.train.train import train

    frozen = {"pretrain_mm_mlp_adapter": stage_1 / "mm_projector.bin", "freeze_mm_mlp_adapter": True}
    train(argv=flags(tiny, 2, tmp_path / "run", max_steps=2, **data[2] | frozen))
    assert torch.equal(weights(tmp_path / "run")[KEY], weights(stage_1)[KEY])


def test_sizes_that_are_no_whole_tiles_stop_the_run_before_it_begins(tiny, data, tmp_path: Path):
    from llava.train.train import train

    argv = flags(tiny, 1, tmp_path / "run", **data[1] | {"image_grid_pinpoints": "[[112, 56], [100, 56]]"})
    with pytest.raises(ValueError, match=r"image_grid_pinpoints holds \[100, 56\], which cannot be cut into"):
        train(argv=argv)


def test_the_regulariser_sees_all_tiles(tiny, data, tmp_path: Path):
    """Several tiles an image and several images a sample, through the launcher."""
    argv = flags(tiny, 1, tmp_path / "run", **data[1])
    launch("--regap_calibration_steps 2", argv)
    lines = history(tmp_path / "run")
    assert len(lines) == 4
    assert all(line["regap/centroid_l2"] > 0 for line in lines)
    assert lines[-1]["regap/alpha"] > 0
