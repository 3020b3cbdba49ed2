"""The regulariser means the same however a step's eight samples are split over passes and processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionModel

from llava.train.sampler import EpochSampler
from tests.conftest import TinyAssets
from tests.integration.conftest import drive
from tests.integration.distributed_jobs import REGAP, SPLITS, STEP, Job, each, projector
from tests.integration.mini_run import forward_without_kwargs, history, launch
from tests.upstream import operations

pytestmark = pytest.mark.filterwarnings("ignore:'llava.train.train' found in sys.modules:RuntimeWarning")
NUMBERS = ("loss", "regap/loss_lm", "regap/alpha")
BEHIND_THE_PROJECTOR = ("regap/loss_gap", "regap/centroid_l2", "regap/image_trace")
KINDS = {name.split("-")[0]: job for name, job in REGAP.items()}
BOS, EOS = 1, 2


@pytest.fixture(scope="module")
def alone(tiny: TinyAssets, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """One process: a kind of run and a split, each made once."""
    root = tmp_path_factory.mktemp("alone")

    def run(kind: str, split: str = "8x1") -> Path:
        folder = root / f"{kind}-{split}"
        if not folder.exists():
            job: Job = KINDS[kind]
            batch, passes = SPLITS[split]
            counts = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": passes}
            plain = forward_without_kwargs() if job.mean else contextlib.nullcontext()
            with (
                plain,
                mock.patch.dict(os.environ),
            ):  # transformers leaves a note there that a run was in bf16
                launch(job.ours, job.argv(tiny, root, folder.name, **counts))
        return folder

    return run


def assert_same_run(ours: Path, theirs: Path, tolerance: float, of_weights: float | None = None) -> None:
    """Losses and alpha within a tolerance; the projector and what is measured behind it within another."""
    of_weights = of_weights or tolerance
    lines, expected = history(ours), history(theirs)
    assert len(lines) == len(expected) > 4
    for line, reference in zip(lines, expected, strict=True):
        for keys, allowed in ((NUMBERS, tolerance), (BEHIND_THE_PROJECTOR, of_weights)):
            wanted = {key: reference[key] for key in keys}
            assert {key: line[key] for key in keys} == pytest.approx(wanted, rel=allowed, abs=1e-12)
    moved = (projector(ours) - projector(theirs)).norm() / projector(theirs).norm()
    assert moved <= of_weights
    assert lines[-1]["regap/alpha"] > 0


@pytest.mark.parametrize("job", each(REGAP, "ragged", "mixed", "gradient", "even"))
def test_two_processes_are_one(alone, together: Path, job: str):
    assert_same_run(together / job, alone(job.split("-", maxsplit=1)[0]), 1e-5)


@pytest.mark.parametrize("split", ["4x2", "1x8"])
@pytest.mark.parametrize("kind", ["ragged", "even", pytest.param("gradient", marks=pytest.mark.full)])
def test_accumulated_passes_are_one(alone, kind: str, split: str):
    assert_same_run(alone(kind, split), alone(kind), 1e-5)


@pytest.fixture(scope="module")
def one_under_zero2(tiny: TinyAssets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, but under ZeRO-2 too, which keeps a bfloat16 copy of the weights to work with."""
    root = tmp_path_factory.mktemp("one")
    drive(root, {"bf16-zero2": REGAP["bf16-zero2"].driven(tiny, root, "bf16-zero2", 1)}, processes=1)
    return root / "bf16-zero2"


@pytest.mark.parametrize("job", each(REGAP, "bf16"))
def test_half_precision_and_checkpointing(alone, together: Path, job: str, request: pytest.FixtureRequest):
    """A plain process and ZeRO-3 round no weights, ZeRO-2 does: its projector is compared with its like."""
    rounds = "zero2" in job
    assert_same_run(together / job, alone("bf16"), 1e-3, of_weights=2**-8 if rounds else None)
    if rounds:
        assert_same_run(together / job, request.getfixturevalue("one_under_zero2"), 1e-3)


@pytest.fixture(scope="module")
def gaps(tiny: TinyAssets, alone) -> list[tuple[int, float]]:
    """Of each sample, in the order in which it is seen: supervised targets, and the centroid gap by hand.

    The tower is transformers' own, the projector is written out, and everything is in float64.
    """
    rows = operations.collated_rows(
        data_path=str(tiny.world.pretrain_json),
        image_folder=str(tiny.world.images),
        tokenizer=str(tiny.llama),
        clip=str(tiny.clip),
        version="plain",
        legacy=True,
        max_length=2048,
    )
    tower = CLIPVisionModel.from_pretrained(tiny.clip).double()
    table = load_file(tiny.llama / "model.safetensors")["model.embed_tokens.weight"].double()
    state = torch.load(alone("still") / "mm_projector.bin", weights_only=True)
    first, last = (torch.nn.Linear(1, 1).double() for _ in range(2))
    for layer, place in ((first, 0), (last, 2)):
        layer.weight.data = state[f"model.mm_projector.{place}.weight"].double()
        layer.bias.data = state[f"model.mm_projector.{place}.bias"].double()

    @torch.no_grad()
    def gap(row: dict[str, torch.Tensor]) -> tuple[int, float]:
        features = tower(row["images"][None].double(), output_hidden_states=True).hidden_states[-2][0, 1:]
        image = last(torch.nn.functional.gelu(first(features)))
        labels = row["labels"].tolist()
        words = [label for label in labels if label not in (-100, BOS, EOS)][:-1]  # the last is the newline
        return sum(label != -100 for label in labels[1:]), float(
            (image.mean(0) - table[words].mean(0)).norm()
        )

    return [gap(rows[index]) for index in EpochSampler(len(rows), seed=42)]


def assert_reference(folder: Path, gaps: list[tuple[int, float]], batch: int) -> list[float]:
    """Each pass is the mean over its own targets; a step is the mean over its passes."""
    lines = history(folder)
    for step, line in enumerate(lines):
        seen = gaps[STEP * step : STEP * (step + 1)]
        passes = [seen[start : start + batch] for start in range(0, STEP, batch)]
        means = [sum(n * gap for n, gap in each) / sum(n for n, _ in each) for each in passes]
        assert line["regap/loss_gap"] == pytest.approx(sum(means) / len(means), rel=1e-5)
        assert line["loss"] == pytest.approx(line["regap/loss_lm"] + line["regap/loss_weighted"], rel=1e-5)
    assert lines[-1]["regap/alpha"] > 0
    return [line["regap/loss_gap"] for line in lines]


def test_means_of_ragged_passes_are_those_of_the_split(alone, gaps):
    found = [assert_reference(alone("still", split), gaps, SPLITS[split][0]) for split in SPLITS]
    for one, other in ((0, 1), (1, 2), (0, 2)):  # the splits differ by more than they may err
        assert found[one] != pytest.approx(found[other], rel=1e-4)


@pytest.mark.parametrize("job", each(REGAP, "still"))
def test_means_of_ragged_processes_are_those_of_the_split(together: Path, gaps, job: str):
    assert_reference(together / job, gaps, 4)
