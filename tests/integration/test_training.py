"""Short runs of both stages, in this process, and the commands that start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.integration.mini_run import digest, flags, losses, weights

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def train():
    from llava.train.train import train

    torch.set_num_threads(1)
    return train


@pytest.fixture(scope="module")
def stage_1(tiny, train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage1") / "llava"
    train(argv=flags(tiny, 1, folder, save_strategy="steps", save_steps=3))
    return folder


def test_stage_1_leaves_upstreams_files(stage_1: Path):
    assert {path.name for path in stage_1.iterdir() if path.is_file()} == {
        "config.json",
        "mm_projector.bin",
        "trainer_state.json",
    }
    assert {path.name for path in (stage_1 / "checkpoint-3").iterdir()} == {
        "config.json",
        "mm_projector.bin",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "llava_run.json",
    }
    layers = ("0.weight", "0.bias", "2.weight", "2.bias")
    assert list(weights(stage_1)) == [f"model.mm_projector.{name}" for name in layers]
    config = json.loads((stage_1 / "config.json").read_text())
    assert config["model_type"] == "llava_llama"
    assert (config["mm_projector_type"], config["tune_mm_mlp_adapter"]) == ("mlp2x_gelu", True)
    assert config["use_cache"] is True


def test_run_that_was_stopped_in_its_final_save_only_saves(tiny, train, stage_1: Path, capfd):
    before, logged = digest(stage_1), losses(stage_1)
    (stage_1 / "mm_projector.bin").unlink()
    train(argv=flags(tiny, 1, stage_1, save_strategy="steps", save_steps=3))
    assert "checkpoint-4, written after step 4." in capfd.readouterr().out
    assert digest(stage_1) == before
    assert losses(stage_1) == logged


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 1e-4}, "learning_rate was 0.002 there and is 0.0001 now"),
        ({"tune_mm_mlp_adapter": False}, "tune_mm_mlp_adapter was True there and is False now"),
        ({"per_device_train_batch_size": 2}, "global_batch_size was 8 there and is 4 now"),
    ],
)
def test_another_runs_output_folder_is_refused_and_left_alone(tiny, train, stage_1: Path, changes, said: str):
    from llava.train.checkpoint import ForeignCheckpointError

    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in stage_1.rglob("*")}

    before = state()
    with pytest.raises(ForeignCheckpointError, match=said):
        train(argv=flags(tiny, 1, stage_1, **changes))
    assert state() == before


def test_folder_to_resume_from_must_be_complete(tiny, train, tmp_path: Path):
    torn = tmp_path / "checkpoint-3"
    torn.mkdir()
    with pytest.raises(FileNotFoundError, match="is not a complete checkpoint"):
        train(argv=flags(tiny, 1, tmp_path / "run", resume_from_checkpoint=torn))
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        train(argv=flags(tiny, 1, tmp_path / "run", resume_from_checkpoint=tmp_path / "checkpoint-4"))


def test_seed_fixes_the_first_projector(tiny, train, tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(argv=flags(tiny, 1, tmp_path / name, max_steps=1, seed=seed))
        torch.rand(1)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


@pytest.mark.parametrize("stage", [1, 2])
def test_activation_checkpointing_changes_no_number(tiny, train, tmp_path: Path, stage: int):
    for name in ("plain", "checkpointed"):
        argv = flags(tiny, stage, tmp_path / name, gradient_checkpointing=name == "checkpointed")
        train(argv=argv)
    plain, checkpointed = tmp_path / "plain", tmp_path / "checkpointed"
    assert losses(checkpointed) == pytest.approx(losses(plain), rel=1e-6)
    for key, tensor in weights(plain).items():
        torch.testing.assert_close(weights(checkpointed)[key], tensor, rtol=1e-5, atol=1e-6)


def test_projector_follows_its_own_learning_rate(tiny, train, tmp_path: Path, stage_1: Path):
    start = stage_1 / "mm_projector.bin"
    train(
        argv=flags(tiny, 2, tmp_path / "run", mm_projector_lr=0.0, pretrain_mm_mlp_adapter=start, max_steps=2)
    )
    trained, before = weights(tmp_path / "run"), torch.load(start, weights_only=True)
    assert all(torch.equal(trained[key], tensor) for key, tensor in before.items())
    from safetensors.torch import load_file

    base = load_file(tiny.llama / "model.safetensors")
    assert not torch.equal(trained["lm_head.weight"], base["lm_head.weight"])


def test_nan_stops_the_run_before_it_reaches_a_checkpoint(tiny, train, tmp_path: Path):
    from llava.train.nan_guard import NonFiniteLossError

    folder = tmp_path / "run"
    known = {str(sample["id"]) for sample in json.loads(Path(tiny.world.pretrain_json).read_text())}
    with pytest.raises(NonFiniteLossError) as found:
        train(
            argv=flags(
                tiny,
                1,
                folder,
                learning_rate=1e30,
                warmup_ratio=0.0,
                max_steps=6,
                save_strategy="steps",
                save_steps=1,
                logging_steps=100,
            )
        )
    named = str(found.value).split("on the samples ")[1].split(";")[0].split(", ")
    assert set(named) <= known
    assert len(named) == 4
    assert not (folder / "mm_projector.bin").exists()
    for checkpoint in folder.glob("checkpoint-*"):
        assert all(tensor.isfinite().all() for tensor in weights(checkpoint).values())


def test_batch_without_a_target_is_counted_and_harmless(tiny, train, tmp_path: Path, monkeypatch, capfd):
    from llava.train.data import DataCollatorForSupervisedDataset as Collator

    collate = Collator.__call__

    def without_targets(self, instances):
        batch = collate(self, instances)
        batch["labels"].fill_(-100)
        return batch

    monkeypatch.setattr(Collator, "__call__", without_targets)
    train(argv=flags(tiny, 1, tmp_path / "run", max_steps=2))
    assert losses(tmp_path / "run") == [0.0, 0.0]
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())
    assert (
        "2 batches before step 2 had no supervised token and taught nothing (4 so far)"
        in capfd.readouterr().out
    )


def test_without_a_tower_the_language_model_trains_on_text(tiny, train, tmp_path: Path):
    samples = json.loads(Path(tiny.world.finetune_json).read_text())
    text_only = [sample for sample in samples if "image" not in sample]
    (tmp_path / "text.json").write_text(json.dumps(text_only * 4))
    argv = flags(
        tiny,
        2,
        tmp_path / "run",
        vision_tower=None,
        data_path=tmp_path / "text.json",
        mm_projector_lr=None,
        max_steps=2,
    )
    train(argv=argv)
    assert len(losses(tmp_path / "run")) == 2
    assert not any("mm_projector" in name for name in weights(tmp_path / "run"))


def test_version_v0_adds_a_padding_token(tiny, train, tmp_path: Path):
    train(argv=flags(tiny, 2, tmp_path / "run", version="v0", max_steps=1))
    rows = [len(weights(tmp_path / "run")[name]) for name in ("model.embed_tokens.weight", "lm_head.weight")]
    from safetensors.torch import load_file

    base = len(load_file(tiny.llama / "model.safetensors")["lm_head.weight"])
    assert rows == [base + 1, base + 1]


def test_names_that_forks_import_are_there():
    from llava.train import train as module

    for name in [*module._EXPORTED, "smart_tokenizer_and_embedding_resize", "safe_save_model_for_hf_trainer"]:
        assert callable(getattr(module, name)), name


def run(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_script_runs_from_any_folder(tiny, tmp_path: Path):
    argv = flags(tiny, 1, tmp_path / "run", max_steps=1)
    done = run([str(ROOT / "llava/train/train_mem.py"), *argv], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "flash-attn is not installed, so attention runs on PyTorch's sdpa" in done.stdout
    assert (tmp_path / "run" / "mm_projector.bin").is_file()


def test_module_teaches_its_flags():
    done = run(["-m", "llava.train.train", "--help"], ROOT)
    assert done.returncode == 0, done.stderr
    for flag in ("--tune_mm_mlp_adapter", "--mm_projector_lr", "--on_bad_sample"):
        assert flag in done.stdout
