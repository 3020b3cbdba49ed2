"""The life of checkpoint folders, and the files that each stage leaves."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llava.train import checkpoint as checkpoints
from llava.train import saved_files
from llava.train.checkpoint import ForeignCheckpointError

FINGERPRINT = {"version": "v1", "seed": 42}


def write_checkpoint(output_dir: Path, step: int, fingerprint=FINGERPRINT) -> Path:
    final = output_dir / f"checkpoint-{step}"
    written = checkpoints.temporary_name(final)
    (written / "global_step").mkdir(parents=True)
    (written / "optimizer.pt").write_bytes(b"o" * 100)
    (written / "global_step" / "shard.pt").write_bytes(b"s" * 10)
    (written / "trainer_state.json").write_text("{}")
    checkpoints.seal(final, fingerprint)
    return final


def test_sealed_checkpoint_is_complete_and_leaves_no_other_name(tmp_path: Path):
    final = write_checkpoint(tmp_path, 4)
    assert checkpoints.what_is_torn(final) is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]
    write_checkpoint(tmp_path, 4)  # a run that resumed before it writes it once more
    assert checkpoints.find_last_complete_checkpoint(tmp_path) == final


def remove_record(folder: Path) -> None:
    (folder / checkpoints.RECORD).unlink()
    (folder / "trainer_state.json").unlink()


def cut_record(folder: Path) -> None:
    os.truncate(folder / checkpoints.RECORD, 20)


def cut_file(folder: Path) -> None:
    os.truncate(folder / "optimizer.pt", 99)


def remove_nested_file(folder: Path) -> None:
    (folder / "global_step" / "shard.pt").unlink()


@pytest.mark.parametrize("tear", [remove_record, cut_record, cut_file, remove_nested_file])
def test_torn_checkpoint_is_passed_over(tmp_path: Path, tear):
    good = write_checkpoint(tmp_path, 9)
    tear(write_checkpoint(tmp_path, 10))
    (tmp_path / "tmp-checkpoint-11").mkdir()
    assert checkpoints.find_last_complete_checkpoint(tmp_path) == good
    checkpoints.refuse_foreign_checkpoints(checkpoints.list_checkpoints(tmp_path), FINGERPRINT)
    tear(good)
    assert checkpoints.find_last_complete_checkpoint(tmp_path) is None
    assert checkpoints.find_last_complete_checkpoint(tmp_path / "nowhere") is None


def test_checkpoints_are_ordered_by_step_not_by_name_or_time(tmp_path: Path):
    for step in (10, 9, 100, 2):
        write_checkpoint(tmp_path, step)
    assert [checkpoints.step_of(path) for path in checkpoints.list_checkpoints(tmp_path)] == [2, 9, 10, 100]


def test_old_checkpoints_go_and_torn_ones_do_not_count(tmp_path: Path):
    for step in (1, 2, 3, 50):
        write_checkpoint(tmp_path, step)
    cut_file(tmp_path / "checkpoint-50")
    checkpoints.keep_newest(tmp_path, None)
    assert len(checkpoints.list_checkpoints(tmp_path)) == 4
    checkpoints.keep_newest(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-3", "checkpoint-50"}


def test_another_runs_checkpoint_is_refused_by_the_field_that_differs(tmp_path: Path):
    folder = write_checkpoint(tmp_path, 3, {"version": "plain", "seed": 42})
    with pytest.raises(ForeignCheckpointError) as refused:
        checkpoints.refuse_foreign_checkpoints(checkpoints.list_checkpoints(tmp_path), FINGERPRINT)
    assert str(refused.value) == (
        f"The output folder holds {folder} of another run: version was 'plain' there and is 'v1' now; "
        "choose another --output_dir, or move that folder away to start anew."
    )


def test_another_programs_checkpoint_is_refused(tmp_path: Path):
    folder = write_checkpoint(tmp_path, 3)
    (folder / checkpoints.RECORD).unlink()
    with pytest.raises(ForeignCheckpointError, match="was not written by this program"):
        checkpoints.refuse_foreign_checkpoints([folder], FINGERPRINT)


def test_block_that_fails_leaves_the_old_files(tmp_path: Path):
    (tmp_path / "config.json").write_text("old")

    def fill_the_disk() -> None:
        with checkpoints.written_aside(tmp_path) as aside:
            (aside / "config.json").write_text("new, but half of it is")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        fill_the_disk()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == "old"
    with checkpoints.written_aside(tmp_path) as aside:
        assert list(aside.iterdir()) == []
        (aside / "config.json").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == "new"


@dataclass
class Model:
    model_name_or_path: str = "vicuna"
    version: str = "v1"
    pretrain_mm_mlp_adapter: str | None = None


def fingerprint_of(data: Path, model: Model | None = None, **changes) -> dict:
    fields = dict.fromkeys(checkpoints._TRAINING_FIELDS, 1) | {
        "train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "world_size": 1,
        **changes,
    }
    data_args = SimpleNamespace(data_path=str(data), image_aspect_ratio="pad", on_bad_sample="error")
    return checkpoints.run_fingerprint(model or Model(), data_args, SimpleNamespace(**fields))


def test_fingerprint_follows_what_the_run_learns_from(tmp_path: Path):
    data, moved, other = (tmp_path / name for name in ("a.json", "b.json", "c.json"))
    data.write_text("[1]")
    moved.write_text("[1]")
    other.write_text("[2]")
    first = fingerprint_of(data)
    assert first == json.loads(json.dumps(first))
    assert fingerprint_of(moved) == first
    assert fingerprint_of(data, train_batch_size=1, world_size=8, gradient_accumulation_steps=1) == first
    for different in (
        fingerprint_of(other),
        fingerprint_of(data, train_batch_size=8),
        fingerprint_of(data, seed=2),
        fingerprint_of(data, Model(version="plain")),
        fingerprint_of(data, Model(pretrain_mm_mlp_adapter=str(other))),
    ):
        assert different != first


def test_folder_named_like_a_checkpoint_gets_its_projector_beside_it():
    assert saved_files.projector_file(Path("out/llava")) == Path("out/llava/mm_projector.bin")
    assert saved_files.projector_file(Path("out/checkpoint-7")) == Path("out/mm_projector/checkpoint-7.bin")


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Module()
        self.model.embed_tokens = torch.nn.Embedding(4, 2)
        self.model.mm_projector = torch.nn.Sequential(
            torch.nn.Linear(3, 2), torch.nn.GELU(), torch.nn.Linear(2, 2)
        )


def test_adapter_file_has_upstreams_keys_and_loads_back(tmp_path: Path):
    toy, other = Toy(), Toy()
    state = saved_files.adapter_state(toy)
    layers = ("0.weight", "0.bias", "2.weight", "2.bias")
    assert list(state) == [f"model.mm_projector.{name}" for name in layers]
    assert "model.embed_tokens.weight" in saved_files.adapter_state(toy, use_im_start_end=True)
    torch.save(state, tmp_path / "mm_projector.bin")
    saved_files.load_weights(other, tmp_path)
    assert all(torch.equal(value, state[key]) for key, value in saved_files.adapter_state(other).items())

    torch.save(state | {"model.mm_projector.4.weight": torch.zeros(1)}, tmp_path / "mm_projector.bin")
    with pytest.raises(
        RuntimeError, match=r"holds \['model.mm_projector.4.weight'\], which this model does not have"
    ):
        saved_files.load_weights(other, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds neither mm_projector\.bin nor whole weights"):
        saved_files.load_weights(other, tmp_path / "empty")


def test_settings_that_would_fail_the_final_save_are_repaired_before_training(tmp_path: Path):
    from transformers import GenerationConfig

    vicuna = GenerationConfig(temperature=0.9, top_p=0.6, eos_token_id=2, bos_token_id=1)
    broken = GenerationConfig(num_beams=1, num_return_sequences=1, eos_token_id=2)
    broken.num_return_sequences = 3  # refused beside a single beam
    for config in (vicuna, broken):
        with pytest.raises(ValueError, match=r"temperature|num_return_sequences"):
            config.validate(strict=True)
        model = SimpleNamespace(generation_config=config)
        saved_files.make_savable(model)
        model.generation_config.save_pretrained(tmp_path)
        assert model.generation_config.eos_token_id == 2
        assert not model.generation_config.do_sample


def test_tokenizer_keeps_its_sentencepiece_model(tiny, tmp_path: Path):
    from llava.tokenization import load_tokenizer

    tokenizer = load_tokenizer(str(tiny.llama))
    saved_files.write_tokenizer(tokenizer, tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == (tiny.llama / "tokenizer.model").read_bytes()
