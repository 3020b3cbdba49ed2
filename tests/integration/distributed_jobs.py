"""What two processes run, one job after the other, and what one process runs to compare with.

Every job sees eight samples a step, in the same order. A name means the same run wherever it stands; only the
split of the eight differs.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.integration.mini_run import LORA, TILES, flags

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

CONFIGS = Path(__file__).parents[2] / "deepspeed_configs"
SAMPLES, STEP = 96, 8
PLAIN = {
    "max_steps": 6,
    "save_strategy": "steps",
    "save_steps": 3,
    "group_by_modality_length": True,
    "mm_projector_lr": 1e-3,
}
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="DeepSpeed compiles an operator: apt-get install g++"
)


@dataclass(frozen=True)
class Job:
    """A training run.

    Attributes:
        data: "world" as it is; "even", captions of one length; "mixed", of which the second process sees the
            samples without an image.
        zero: stage of DeepSpeed's ZeRO; 0 is DDP.
        ours: flags of the launcher; None trains without it.
        mean: the forward takes no `**kwargs`, so every pass takes the mean of its own loss.
        resume: run it once more from its middle.
        stage: of LLaVA.
        changes: other flags of the run.
    """

    data: str = "world"
    zero: int = 0
    ours: str | None = "--regap_calibration_steps 4"
    mean: bool = False
    resume: bool = False
    stage: int = 1
    changes: dict[str, Any] = field(default_factory=lambda: {"max_steps": SAMPLES // STEP})

    def driven(self, tiny: TinyAssets, root: Path, name: str, processes: int = 2) -> dict[str, Any]:
        """As the driver reads it."""
        config = CONFIGS / f"zero{self.zero}.json" if self.zero else None
        split = {
            "per_device_train_batch_size": STEP // processes,
            "gradient_accumulation_steps": 1,
            "deepspeed": config,
        }
        if self.resume:
            split |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
        argv = self.argv(tiny, root, name, **split)
        return {"ours": self.ours, "mean": self.mean, "resume": self.resume, "argv": argv}

    def argv(self, tiny: TinyAssets, root: Path, name: str, **split: Any) -> list[str]:
        """The flags of the training command; it writes to `root / name`."""
        data = {} if self.data == "world" else DATA[self.data](tiny, root)
        return flags(tiny, self.stage, root / name, **{**data, **self.changes, **split})


def even_data(tiny: TinyAssets, root: Path) -> dict[str, Any]:
    """Pictures whose captions have one number of tokens, the commonest."""
    from transformers import AutoTokenizer

    samples = json.loads(tiny.world.pretrain_json.read_text())
    tokenizer = AutoTokenizer.from_pretrained(tiny.llama)
    by_length: dict[int, list[dict[str, Any]]] = {}
    for sample in samples:
        by_length.setdefault(len(tokenizer(sample["conversations"][1]["value"]).input_ids), []).append(sample)
    commonest = max(by_length.values(), key=len)
    path = root / "even.json"
    path.write_text(json.dumps([commonest[index % len(commonest)] for index in range(SAMPLES)]))
    return {"data_path": path}


def mixed_data(tiny: TinyAssets, root: Path) -> dict[str, Any]:
    """Conversations of which, four a batch, every second batch is text alone: that of the second process."""
    from llava.train.sampler import EpochSampler

    samples = json.loads(tiny.world.finetune_json.read_text())
    kinds = [[sample for sample in samples if ("image" in sample) == shown] for shown in (True, False)]
    placed: list[Any] = [None] * SAMPLES
    for place, index in enumerate(EpochSampler(SAMPLES, seed=42)):
        kind = kinds[place // 4 % 2]
        placed[index] = kind[place % len(kind)]
    path = root / "mixed.json"
    path.write_text(json.dumps(placed))
    return {"data_path": path, "version": "v1"}


def tiles_data(tiny: TinyAssets, root: Path) -> dict[str, Any]:
    """Talks about one picture, two or none, of several shapes, cut into tiles."""
    from PIL import Image

    shapes = [(64, 64), (150, 50), (40, 90), (56, 56), (120, 130)]
    for number, shape in enumerate(shapes):
        Image.radial_gradient("L").resize(shape).convert("RGB").save(root / f"{number}.png")
    samples = []
    for number in range(SAMPLES):
        shown = [f"{(number * 3 + at) % len(shapes)}.png" for at in range(number % 3)]
        said = "<image> or " * len(shown) + "what"
        turns = [
            {"from": "human", "value": said},
            {"from": "gpt", "value": "a red ring" + " left" * (number % 5)},
        ]
        samples.append({"id": number, "conversations": turns, **({"image": shown} if shown else {})})
    path = root / "tiles.json"
    path.write_text(json.dumps(samples))
    return {"data_path": path, "image_folder": root}


DATA = {"even": even_data, "mixed": mixed_data, "tiles": tiles_data}
# Not grouped: one process may have no picture while the other has.
MIXED_TILES = PLAIN | TILES | {"group_by_modality_length": False}
BF16 = {"max_steps": SAMPLES // STEP, "bf16": True, "gradient_checkpointing": True}
GRADIENT = "--regap_calibration_steps 4 --regap_calibration gradient"
STILL = {"max_steps": 6, "learning_rate": 0.0, "image_aspect_ratio": "pad"}
STILL_LORA = LORA | {"lora_dropout": 0.0}  # what dropout draws depends on the split
# Without the launcher, and resumed: LLaVA alone.
TRAINING = {
    "ddp": Job(ours=None, resume=True, changes=PLAIN),
    "zero2": Job(ours=None, resume=True, changes=PLAIN, zero=2),
    "zero3": Job(ours=None, resume=True, changes=PLAIN, zero=3),
    "zero3-stage2": Job(ours=None, resume=True, changes=PLAIN, zero=3, stage=2),
    "ddp-tiles": Job(ours=None, resume=True, changes=MIXED_TILES, stage=2, data="tiles"),
    "zero3-tiles": Job(ours=None, resume=True, changes=MIXED_TILES, zero=3, stage=2, data="tiles"),
    **{
        f"{kind}-lora": Job(ours=None, resume=True, changes=PLAIN | STILL_LORA, zero=zero, stage=2)
        for kind, zero in {"ddp": 0, "zero2": 2, "zero3": 3}.items()
    },
}
# As the scripts for clusters train stage 2: in bf16, with activation checkpointing.
CLUSTER = {
    f"cluster-{kind}": Job(
        ours=None,
        resume=True,
        zero=zero,
        stage=2,
        changes=PLAIN | {"bf16": True, "gradient_checkpointing": True, "learning_rate": 3e-3, **more},
    )
    for kind, zero, more in (
        ("stage2", 3, {}),
        ("lora", 3, STILL_LORA),
        ("qlora", 2, STILL_LORA | {"bits": 4}),
    )
}
# Through the launcher; the part before the dash names the run of one process to compare with.
REGAP = {
    f"{kind}-{'zero' + str(zero) if zero else 'ddp'}": Job(zero=zero, **what)
    for kind, what in {
        "ragged": {},
        "mixed": {"data": "mixed"},
        "gradient": {"ours": GRADIENT},
        "even": {"data": "even", "mean": True},
        "still": {"changes": STILL, "mean": True},
        "bf16": {"changes": BF16},
    }.items()
    for zero in ((0, 2, 3) if kind != "bf16" else (2, 3))
}
# What one process needs to be asked beside the eight at once.
SPLITS = {"8x1": (8, 1), "4x2": (4, 2), "1x8": (1, 8)}
CORE = {
    "ragged-ddp",
    "ragged-zero2",
    "ragged-zero3",
    "mixed-zero3",
    "even-ddp",
    "still-ddp",
    "bf16-zero3",
    "cluster-stage2",
} | (TRAINING.keys() - {"ddp-lora", "zero2-lora", "ddp-tiles", "zero3-tiles"})


def each(jobs: dict[str, Job], *kinds: str) -> list[Any]:
    """Parameters named `job`: what the chosen tests ask for is what the driver runs."""
    return [
        pytest.param(
            name,
            marks=[needs_compiler] * bool(job.zero) + [pytest.mark.full] * (name not in CORE),
        )
        for name, job in jobs.items()
        if not kinds or name.split("-")[0] in kinds
    ]


def projector(folder: Path) -> torch.Tensor:
    """All of the final projector as one vector."""
    tensors = torch.load(folder / "mm_projector.bin", weights_only=True)
    return torch.cat([tensor.flatten().double() for _, tensor in sorted(tensors.items())])
