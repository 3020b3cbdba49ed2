"""Our own training script through the launcher: the patch changes what it should and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Trainer

from regap_patch.errors import CalibrationError, FinetuneError, LaunchError, UnknownHostError
from regap_patch.gap.losses import LOSSES
from regap_patch.train.launch import main
from tests.conftest import TinyAssets
from tests.integration.mini_run import digest, flags, history, launch, losses, weights

STEPS, WARMUP = 44, 5  # 39 steps after calibration
KEYS = {
    *("loss_lm", "loss_gap", "loss_weighted", "alpha", "centroid_l2", "pairwise_sq"),
    *("image_norm", "text_norm", "image_trace", "text_trace", "cosine"),
}
# What each loss makes small: a log key, or the loss itself where it is no statistic.
QUANTITY = {
    "centroid_l2": "centroid_l2",
    "centroid_sq": "centroid_l2",
    "pairwise_l2": "pairwise_l2",
    "pairwise_sq": "pairwise_sq",
    "norm_match": "loss_gap",
}
pytestmark = pytest.mark.filterwarnings("ignore:'llava.train.train' found in sys.modules:RuntimeWarning")


@pytest.fixture(scope="module")
def trained(tiny: TinyAssets, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str | None], Path]:
    """Stage 1 with our flags (None: without the launcher), each run made once."""
    root, made = tmp_path_factory.mktemp("launcher"), {}

    def run(ours: str | None) -> Path:
        if ours not in made:
            made[ours] = root / str(len(made))
            argv = flags(tiny, 1, made[ours], max_steps=STEPS, gradient_accumulation_steps=1)
            if ours is None:
                from llava.train.train import train

                train(argv=argv)
            else:
                launch(ours, argv)
        return made[ours]

    return run


def test_weight_zero_is_bit_equal_to_no_launcher(trained):
    plain, zero = trained(None), trained("--regap_weight 0 --regap_loss pairwise_l2")
    assert losses(zero) == losses(plain)
    assert [line["grad_norm"] for line in history(zero)] == [line["grad_norm"] for line in history(plain)]
    assert digest(zero) == digest(plain)
    assert not (plain / "regap.json").exists()
    assert {f"regap/{key}" for key in KEYS} < set(history(zero)[0])


@pytest.mark.parametrize("loss", QUANTITY)
def test_each_loss_lowers_its_own_quantity(loss: str, trained):
    """At the same step as the run with weight 0, which records the same quantity."""
    measured = loss if loss == "norm_match" else "pairwise_l2"
    zero = history(trained(f"--regap_weight 0 --regap_loss {measured}"))
    on = history(trained("" if loss == "centroid_l2" else f"--regap_loss {loss}"))
    key = f"regap/{QUANTITY[loss]}"
    acting = [line["step"] for line in on if line["regap/alpha"] > 0]
    assert acting == list(range(WARMUP + 1, STEPS + 1))
    assert on[-1][key] <= 0.6 * zero[-1][key]
    assert [line["loss"] for line in on[:WARMUP]] == [line["loss"] for line in zero[:WARMUP]]
    alpha = {line["regap/alpha"] for line in on[WARMUP:]}
    assert len(alpha) == 1
    calm = on[:WARMUP]
    expected = sum(line["regap/loss_lm"] for line in calm) / sum(line["regap/loss_gap"] for line in calm)
    assert alpha.pop() == pytest.approx(expected, rel=1e-9)


def test_what_it_leaves(trained, tiny: TinyAssets):
    plain, on = trained(None), trained("")
    before, after = weights(plain), weights(on)
    kinds = [[(name, value.dtype, value.shape) for name, value in run.items()] for run in (before, after)]
    assert kinds[0] == kinds[1]
    assert not torch.equal(after["model.mm_projector.2.bias"], before["model.mm_projector.2.bias"])

    lines = history(on)
    ours = {f"regap/{key}" for key in KEYS}
    assert all({key for key in line if key.startswith("regap/")} == ours for line in lines)
    for line in lines:
        total = line["regap/loss_lm"] + line["regap/loss_weighted"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
        squares = line["regap/image_trace"] + line["regap/text_trace"]
        assert line["regap/pairwise_sq"] >= squares

    left = json.loads((on / "regap.json").read_text())
    assert left["config"]["loss"] == "centroid_l2"
    assert left["config"]["weight"] == 1.0
    assert left["host"] == "llava"
    assert left["step"] == STEPS
    assert left["alpha"] == lines[-1]["regap/alpha"] == left["calibration"]["alpha"]
    assert left["calibration"]["seen"] == WARMUP
    assert left["gap"]["start"]["centroid_l2"] == lines[0]["regap/centroid_l2"]
    assert left["gap"]["end"]["centroid_l2"] == lines[-1]["regap/centroid_l2"]
    assert left["versions"]["torch"] == torch.__version__
    assert left["data"]["samples"] == 64
    assert left["data"]["sha256"] == hashlib.sha256(tiny.world.pretrain_json.read_bytes()).hexdigest()


def test_log_lines_are_means_over_the_window(trained, tiny: TinyAssets, tmp_path: Path):
    every = history(trained("--regap_weight 0 --regap_loss pairwise_l2"))
    argv = flags(tiny, 1, tmp_path, max_steps=STEPS, gradient_accumulation_steps=1, logging_steps=4)
    launch("--regap_weight 0 --regap_loss pairwise_l2", argv)
    for index, line in enumerate(history(tmp_path)):
        window = every[4 * index : 4 * index + 4]
        for key in ("regap/loss_lm", "regap/centroid_l2", "regap/cosine", "regap/pairwise_l2"):
            assert line[key] == pytest.approx(sum(single[key] for single in window) / 4, rel=1e-9)


@pytest.mark.parametrize(("kept", "phase"), [(4, "during calibration"), (8, "after it")])
def test_resume_continues_alpha_and_sums(kept: int, phase: str, tiny: TinyAssets, tmp_path: Path):
    """The same line again, from a checkpoint in the middle: same trajectory, same alpha, same sums, also on
    the ramp."""
    argv = flags(tiny, 1, tmp_path, max_steps=12, save_strategy="steps", save_steps=4)
    ours = "--regap_calibration_steps 6 --regap_ramp_steps 3"
    launch(ours, argv)
    whole, done = json.loads((tmp_path / "regap.json").read_text()), digest(tmp_path)
    lines = history(tmp_path)
    shares = [line["regap/alpha"] / whole["calibration"]["alpha"] for line in lines]
    assert shares == pytest.approx([0] * 6 + [0.25, 0.5, 0.75, 1, 1, 1])
    for checkpoint in tmp_path.glob("checkpoint-*"):
        step = int(checkpoint.name.split("-")[1])
        assert json.loads((checkpoint / "regap.json").read_text())["step"] == step
        if step > kept:
            shutil.rmtree(checkpoint)
    for name in ("mm_projector.bin", "regap.json", "trainer_state.json"):
        (tmp_path / name).unlink()
    measured = json.loads((tmp_path / f"checkpoint-{kept}" / "regap.json").read_text())["calibration"]
    assert (measured["alpha"] is None) == (phase == "during calibration")

    with pytest.raises(CalibrationError, match=r"loss='centroid_l2' \(now 'pairwise_sq'\).*same --regap_"):
        launch(f"{ours} --regap_loss pairwise_sq", argv)
    launch(ours, argv)
    assert json.loads((tmp_path / "regap.json").read_text()) == whole
    assert digest(tmp_path) == done
    assert history(tmp_path) == lines


def test_a_checkpoint_without_our_file_cannot_be_resumed(tiny: TinyAssets, tmp_path: Path):
    argv = flags(tiny, 1, tmp_path, max_steps=4, save_strategy="steps", save_steps=2)
    from llava.train.train import train

    train(argv=argv)
    shutil.rmtree(tmp_path / "checkpoint-4")
    with pytest.raises(CalibrationError, match=r"checkpoint-2 has no regap\.json"):
        launch("--regap_calibration_steps 1", argv)


def test_finetuning_is_refused_and_recording_is_not(tiny: TinyAssets, tmp_path: Path):
    argv = flags(tiny, 2, tmp_path, max_steps=3)
    with pytest.raises(FinetuneError, match="regap_allow_finetune"):
        launch("--regap_calibration_steps 1", argv)
    launch("--regap_weight 0", argv)
    assert history(tmp_path)[-1]["regap/centroid_l2"] > 0
    launch("--regap_calibration_steps 1 --regap_allow_finetune", flags(tiny, 2, tmp_path / "on", max_steps=3))
    assert history(tmp_path / "on")[-1]["regap/alpha"] > 0


def test_zero_warmup_is_an_error_with_both_remedies(tiny: TinyAssets, tmp_path: Path):
    with pytest.raises(CalibrationError, match=r"warm-up steps, or set.*--regap_calibration_steps N"):
        launch("", flags(tiny, 1, tmp_path, warmup_ratio=0))


SCRIPTS = {
    "idle": ("print('nothing to train')\n", LaunchError, "without building a transformers.Trainer"),
    "exit": ("import sys\nsys.exit(0)\n", LaunchError, "without building a transformers.Trainer"),
    "other": (
        "import torch, tempfile\nfrom transformers import Trainer, TrainingArguments\n"
        "args = TrainingArguments(tempfile.mkdtemp(), use_cpu=True, report_to='none')\n"
        "Trainer(model=torch.nn.Linear(2, 2), args=args)\n",
        UnknownHostError,
        "torch.nn.modules.linear.Linear",
    ),
}


@pytest.mark.parametrize("case", SCRIPTS)
def test_what_cannot_be_patched_is_said(case: str, tmp_path: Path):
    text, error, words = SCRIPTS[case]
    script = tmp_path / f"{case}.py"
    script.write_text(text)
    before = (Trainer.__init__, list(sys.argv), list(sys.path))
    with pytest.raises(error, match=words):
        main([str(script)])
    assert (Trainer.__init__, sys.argv, sys.path) == before


def test_flags_before_the_script_go_to_it_and_no_random_number_is_drawn(tmp_path: Path):
    script = tmp_path / "show.py"
    script.write_text(
        "import sys, json, torch, random\n"
        f"json.dump([sys.argv, sys.path[0], __name__], open({str(tmp_path / 'seen.json')!r}, 'w'))\n"
        "raise KeyError('from the script')\n"
    )
    states = torch.get_rng_state()
    with pytest.raises(KeyError, match="from the script"):
        main(["--local_rank=1", "--regap_weight=0", str(script), "--flag", "--regap_weight", "3"])
    assert torch.equal(torch.get_rng_state(), states)
    argv, path, name = json.loads((tmp_path / "seen.json").read_text())
    assert argv == [str(script), "--local_rank=1", "--flag", "--regap_weight", "3"]
    assert (path, name) == (str(tmp_path), "__main__")


def test_the_table_of_quantities_is_complete():
    assert set(QUANTITY) == set(LOSSES) - {"off"}
