"""A save is gone through before the first step; what would fail at the end fails there."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.integration.mini_run import LORA, flags, prepared

WEIGHTS = {".bin", ".safetensors", ".pt"}
RUNS = {"stage1": (1, {}), "stage2": (2, {}), "lora": (2, LORA)}


@pytest.fixture(params=RUNS)
def line(request: pytest.FixtureRequest, tiny, tmp_path: Path) -> list[str]:
    stage, changes = RUNS[request.param]
    return flags(tiny, stage, tmp_path / "out", max_steps=1, **changes)


def test_it_goes_the_way_of_the_save_and_leaves_nothing(line: list[str], tmp_path: Path, monkeypatch, capfd):
    from llava.train.llava_trainer import LLaVATrainer

    written: dict[str, int] = {}
    save = LLaVATrainer._save

    def watched(trainer, output_dir, state_dict):
        save(trainer, output_dir, state_dict)
        written.update({path.name: path.stat().st_size for path in Path(output_dir).iterdir()})

    monkeypatch.setattr(LLaVATrainer, "_save", watched)
    trainer = prepared(line)
    assert written.keys() > {"config.json"}
    assert written.keys() & {"mm_projector.bin", "model.safetensors", "adapter_model.safetensors"}
    whole = sum(param.nbytes for param in trainer.model.parameters())
    weights = [size for name, size in written.items() if name.endswith((".bin", ".safetensors"))]
    assert sum(weights) < 0.2 * whole  # names, and a number for each
    assert not any((tmp_path / "out").iterdir())
    assert "Saving was rehearsed in 0." in capfd.readouterr().out


def refuse(line: list[str]) -> str:
    from llava.train.save_rehearsal import SaveRehearsalError

    with pytest.raises(SaveRehearsalError) as found:
        prepared(line)
    return str(found.value)


def test_settings_that_cannot_be_written_stop_the_run(line: list[str], tmp_path: Path, monkeypatch):
    from transformers import PretrainedConfig

    def broken(*args, **kwargs):
        raise OSError("cannot be written")

    monkeypatch.setattr(PretrainedConfig, "save_pretrained", broken)
    assert refuse(line) == (
        "The save of this run was tried before the first step and would fail (OSError: cannot be written); "
        "nothing was trained, so mend that and start again."
    )
    assert not any((tmp_path / "out").iterdir())


def test_lost_name_stops_the_run(tiny, tmp_path: Path, monkeypatch):
    from llava.model import publishing

    rename = publishing.published_state_dict
    monkeypatch.setattr(
        publishing,
        "published_state_dict",
        lambda state: {name: value for name, value in rename(state).items() if name != "model.norm.weight"},
    )
    assert "lacks ['model.norm.weight']" in refuse(flags(tiny, 2, tmp_path / "out"))


def test_full_disk_stops_the_run(tiny, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    said = refuse(flags(tiny, 2, tmp_path / "out", save_strategy="steps", save_steps=1, save_total_limit=1))
    assert said.startswith("The saves of this run take ")
    assert said.endswith("make room, or pass another --output_dir or a smaller --save_total_limit.")


@pytest.mark.parametrize("kind", [*RUNS, "lora with added tokens"])
def test_bytes_to_come_are_those_that_came(tiny, tmp_path: Path, kind: str):
    from llava.train.save_rehearsal import bytes_to_come
    from llava.train.train import train

    stage, changes = RUNS.get(kind, (2, LORA | {"mm_use_im_start_end": True}))
    saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1, "max_steps": 2}
    line = flags(tiny, stage, tmp_path / "out", **saving, **changes)
    expected = bytes_to_come(prepared(line))
    train(argv=line)

    def weights(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.glob("*") if path.suffix in WEIGHTS)

    # while the second checkpoint is written, the first is still there
    came = weights(tmp_path / "out") + 2 * weights(tmp_path / "out" / "checkpoint-2")
    assert came == pytest.approx(expected, rel=0.16, abs=50_000)  # names, and small records
