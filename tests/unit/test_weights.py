"""Which files a checkpoint is, and that a hash that is kept is not kept for too long."""

from __future__ import annotations

import json
import os
import time

import pytest

from regap_patch.errors import EvaluationError
from regap_patch.safety import weights
from regap_patch.safety.weights import Files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = tmp_path / "model"
    made.mkdir()
    for name in (
        "model.safetensors",
        "config.json",
        "tokenizer.model",
        "optimizer.pt",
        "training_args.bin",
        "a.txt",
    ):
        (made / name).write_bytes(name.encode() * 9)
    return made


@pytest.fixture
def settled(monkeypatch):
    """As if these files had been written long ago."""
    monkeypatch.setattr(weights, "SETTLED", -1.0)


def test_weights_and_what_describes_them(folder):
    found = Files({"model": str(folder)}).sha256()
    assert sorted(found) == ["model/config.json", "model/model.safetensors", "model/tokenizer.model"]
    (folder / "optimizer.pt").write_bytes(b"another step")
    assert Files({"model": str(folder)}).sha256() == found
    assert set(Files({"model": str(folder), "base": str(folder)}).sha256()) > set(found)


def test_what_is_known_is_not_read_again(folder, settled, monkeypatch):
    found = Files({"model": str(folder)}).sha256()
    monkeypatch.setattr(weights, "_sha256", lambda path: pytest.fail(f"{path} is read again"))
    assert Files({"model": str(folder)}).sha256() == found


def test_a_file_just_written_is_never_known(folder):
    """Two writes within the clock's tick have one time."""
    path = folder / "model.safetensors"
    now = path.stat().st_mtime_ns
    before = Files({"model": str(folder)}).sha256()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(now, now))
    after = Files({"model": str(folder)}).sha256()
    assert {name for name in after if after[name] != before[name]} == {"model/model.safetensors"}


def test_weights_that_changed_under_their_old_time_are_other_weights(folder, settled):
    """As `rsync -t`, `cp -p` and archives with one time for all files leave them."""
    path = folder / "model.safetensors"
    os.utime(path, (1e9, 1e9))
    files = Files({"model": str(folder)})
    before = files.sha256()
    time.sleep(0.05)  # a tick of the file system's clock
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, (1e9, 1e9))
    with pytest.raises(EvaluationError, match="changed while it was loaded"):
        files.make_sure()
    assert Files({"model": str(folder)}).sha256() != before


def test_a_cache_that_is_torn_or_cannot_be_written(folder, settled, tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "regap" / "weights.json"
    found = Files({"model": str(folder)}).sha256()
    assert len(json.loads(cache.read_text())) == 3
    cache.write_text("{")
    assert Files({"model": str(folder)}).sha256() == found
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert Files({"model": str(folder)}).sha256() == found


def test_what_is_no_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        EvaluationError, match=r"The tower was to be taken from .*empty, but no weights lie there"
    ):
        Files({"tower": str(tmp_path / "empty")})
    with pytest.raises(EvaluationError, match="there is no such folder"):
        Files({"model": str(tmp_path / "nowhere")})


def test_a_shard_that_is_missing_is_not_whole(folder):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-1.safetensors").write_bytes(b"1")
    assert not weights._is_whole(folder)
    (folder / "model-2.safetensors").write_bytes(b"2")
    assert weights._is_whole(folder)
