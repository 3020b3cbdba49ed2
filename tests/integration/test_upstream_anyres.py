"""Tiles of a picture and several pictures in a row, as upstream has them, and what we train on them there."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from PIL import Image

from tests.upstream.recipes import stage_flags

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
# None is tall and shrinks both ways: Pillow 13, which the peer has, does that in another order than 12.
SIZES = [(64, 64), (80, 56), (30, 30), (200, 61), (56, 160), (112, 112), (90, 40), (17, 55)]
IMAGE = -200


class Trained(NamedTuple):
    """Runs of ours on tiles."""

    files: list[str]
    stage_1: Path
    stage_2: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Pictures of noise over a ramp, in sizes that take different grids."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = random.Random(0)
    made = []
    for number, (width, height) in enumerate(SIZES):
        picture = Image.radial_gradient("L").resize((width, height)).convert("RGB")
        noise = Image.frombytes("RGB", (width, height), draw.randbytes(3 * width * height))
        made.append(str(folder / f"{number}.png"))
        Image.blend(picture, noise, 0.3).save(made[-1])
    return made


@pytest.fixture(scope="module")
def trained(
    files: list[str], tiny: TinyAssets, packages, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """Both stages of ours with `spatial_unpad`: one image, several, and none."""
    root = tmp_path_factory.mktemp("anyres")
    names = [Path(file).name for file in files]
    pairs = [(names[n % 8], names[(n + 3) % 8]) for n in range(6)]
    captions = [turns([name], "<image>", "a red ring") for name in names]
    talks = [turns(list(pair), "<image> or <image>", "the first", "why", "it is red") for pair in pairs]
    talks += [turns([names[0]], "<image>\nwhat", "a ring"), turns([], "who", "me")]
    folders = []
    for stage, samples in ((1, captions), (2, talks)):
        data, folder = root / f"{stage}.json", root / f"llava-ours-anyres{stage}"
        data.write_text(json.dumps(samples))
        flags = stage_flags(
            stage,
            llama=tiny.llama,
            clip=tiny.clip,
            world=tiny.world,
            projector=folders[0] / "mm_projector.bin" if folders else Path("none"),
            output_path=folder,
            max_steps=3,
            batch_size=2,
        )
        flags += ["--data_path", str(data), "--image_folder", str(Path(files[0]).parent)]
        flags += ["--image_aspect_ratio", "anyres", "--image_grid_pinpoints", str(PINPOINTS)]
        flags += ["--mm_patch_merge_type", "spatial_unpad"]
        if stage == 1:
            place = flags.index("--pretrain_mm_mlp_adapter")
            del flags[place : place + 2]
        packages["ours"]("train", argv=flags)
        folders.append(folder)
    return Trained(files, *folders)


def turns(images: list[str], *said: str) -> dict[str, Any]:
    speakers = ("human", "gpt")
    turns = [{"from": speakers[n % 2], "value": text} for n, text in enumerate(said)]
    return {"id": "+".join(images), "conversations": turns, **({"image": images} if images else {})}


def ask_both(packages: Any, operation: str, **arguments: Any) -> list[Any]:
    return [packages[name](f"anyres_operations.{operation}", **arguments) for name in ("ours", "upstream")]


def test_thousands_of_sizes_take_the_same_grids(packages):
    draw = random.Random(1)
    sizes = [[draw.randint(1, 1500), draw.randint(1, 1500)] for _ in range(2500)]
    sizes += [[draw.randint(1, 60), draw.randint(1, 60)] for _ in range(500)]  # small ones tie
    several = [[56 * columns, 56 * rows] for columns in range(1, 7) for rows in range(1, 7)]
    for pinpoints in (PINPOINTS, several, draw.sample(several, 12)):
        ours, theirs = ask_both(packages, "grids", sizes=sizes, pinpoints=pinpoints)
        assert ours == theirs
        assert len({tuple(best) for best in ours["best"]}) >= len(pinpoints) // 2


def test_thousands_of_planes_lose_the_same_padding(packages):
    draw = random.Random(2)
    sizes = [[draw.randint(1, 900), draw.randint(1, 900)] for _ in range(3000)]
    planes = [[4 * draw.randint(1, 6), 4 * draw.randint(1, 6)] for _ in sizes]
    ours, theirs = ask_both(packages, "kept_parts", sizes=sizes, planes=planes)
    assert ours == theirs


def test_pictures_become_the_same_tiles(packages, files: list[str], tiny: TinyAssets):
    ours, theirs = ask_both(packages, "pixels", files=files, clip=str(tiny.clip), pinpoints=PINPOINTS)
    assert {tuple(image.shape) for image in ours[:-1]} == {(3, 3, 56, 56), (4, 3, 56, 56), (5, 3, 56, 56)}
    for mine, peer in zip(ours, theirs, strict=True):
        assert torch.equal(mine, peer)


def rows(files: list[str]) -> list[dict[str, Any]]:
    """One image, none (and a dummy), three, two next to each other."""
    return [
        {"ids": [1, IMAGE, 40, 41, 42], "files": files[:1]},
        {"ids": [1, 50, 51], "files": files[2:3]},
        {"ids": [1, 30, IMAGE, 31, IMAGE, 32, 33, IMAGE], "files": files[1:4]},
        {"ids": [1, IMAGE, IMAGE, 60], "files": files[4:6]},
    ]


@pytest.mark.parametrize("merge_type", ["flat", "spatial", "spatial_unpad"])
def test_tiles_of_several_images_join_alike(packages, trained: Trained, merge_type: str):
    ours, theirs = ask_both(
        packages,
        "merged",
        model_path=str(trained.stage_2),
        model_base=None,
        rows=rows(trained.files),
        merge_type=merge_type,
    )
    check(ours, theirs)
    assert torch.equal(ours["newline"], theirs["newline"])


@pytest.mark.parametrize("as_stack", [True, False])
def test_several_whole_images_join_alike(packages, trained: Trained, as_stack: bool):
    ours, theirs = ask_both(
        packages,
        "merged",
        model_path=str(trained.stage_2),
        model_base=None,
        rows=rows(trained.files),
        merge_type="flat",
        aspect_ratio="pad",
        as_stack=as_stack,
    )
    check(ours, theirs)
    assert ours["mask"].sum(1).tolist() == [4 + 16, 3, 5 + 3 * 16, 2 + 2 * 16]


def test_a_batch_is_continued_alike(packages, trained: Trained):
    """Upstream's batches are right once the configuration pads on the left, which ours do by themselves."""
    ours, theirs = ask_both(
        packages,
        "merged",
        model_path=str(trained.stage_2),
        model_base=None,
        rows=rows(trained.files),
        merge_type="spatial_unpad",
        padding_side="left",
        num_tokens=12,
    )
    check(ours, theirs)
    assert not ours["mask"][:, 0].all()
    assert ours["mask"][:, -1].all()
    assert ours["tokens"].tolist() == theirs["tokens"].tolist()
    assert ours["tokens"].shape == (4, 12)


def test_upstream_finds_the_newline_that_stage_1_trained(packages, trained: Trained, tiny: TinyAssets):
    saved = torch.load(trained.stage_1 / "mm_projector.bin", weights_only=True)["model.image_newline"]
    ours, theirs = ask_both(
        packages,
        "merged",
        model_path=str(trained.stage_1),
        model_base=str(tiny.llama),
        rows=rows(trained.files),
        merge_type="spatial_unpad",
    )
    check(ours, theirs)
    for found in (ours, theirs):
        assert torch.equal(found["newline"], saved.half().float())


def check(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert torch.equal(ours["mask"], theirs["mask"])
    assert torch.equal(ours["labels"], theirs["labels"])
    for name in ("embeds", "logits"):
        assert ours[name].shape == theirs[name].shape
        assert (ours[name] - theirs[name]).abs().max() <= 1e-5, name
    assert theirs["logits"].std() > 0.1, "logits without a shape would agree by themselves"
