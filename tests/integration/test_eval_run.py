"""`regap eval` on a LLaVA of random weights: killed and resumed, sharded, judged, scored and reported."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from regap_patch.cli import main
from regap_patch.records import answer_key, to_line
from regap_patch.safety.benchmarks import custom
from regap_patch.safety.blocks import Shard, merge
from regap_patch.safety.folder import RunFolder
from regap_patch.safety.manifest import Settings, keyed_decoding, keyed_target
from regap_patch.safety.run import run_evaluation
from regap_patch.safety.target import Decoding
from regap_patch.safety.targets.llava import LlavaTarget
from regap_patch.safety.targets.local import LocalOptions
from regap_patch.safety.tasks import Task
from tests.contract.tiny_llava import make_model
from tests.unit.evaluation_items import make_items

ROOT = Path(__file__).parents[2]
MODES = ("none", "words", "noise", "real")
SETTINGS = Settings(Decoding(max_new_tokens=8), batch_size=4, seed=5)


@pytest.fixture(scope="module")
def checkpoint(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("llava") / "first"
    make_model(tiny).eval().save_pretrained(path)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(tiny.llama / name, path / name)
    return path


@pytest.fixture(scope="module")
def other_checkpoint(checkpoint, tmp_path_factory):
    """The same with other weights in the projector."""
    from safetensors.torch import load_file, save_file

    path = tmp_path_factory.mktemp("llava") / "second"
    shutil.copytree(checkpoint, path)
    tensors = load_file(path / "model.safetensors")
    tensors["model.mm_projector.0.weight"] += 0.5
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("data") / "custom", 22)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def merged(root: Path) -> bytes:
    folder = RunFolder(root)
    manifest = json.loads(folder.manifest.read_text())
    by = keyed_target(manifest), keyed_decoding(manifest)
    samples = list(folder.read_samples("custom"))
    keys = {(sample.uid, sample.image_mode): answer_key(sample, *by) for sample in samples}
    return "".join(map(to_line, merge(folder, samples, keys))).encode()


def work(checkpoint: Path, data: Path, output_path: Path, shard: Shard) -> None:
    target = LlavaTarget(LocalOptions(str(checkpoint), device="cpu"))
    run_evaluation(target, [Task(custom, data, MODES)], output_path, SETTINGS, shard=shard)


def killed(seconds: float, *arguments: object) -> bool:
    """Run `work` in a process of its own and SIGKILL it after a while; whether it was still at work."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        return True
    assert process.exitcode == 0
    return False


def test_sigkill_anywhere_and_shards_give_the_same_bytes(checkpoint, data, tmp_path):
    started = time.perf_counter()
    work(checkpoint, data, tmp_path / "whole", Shard())
    took = time.perf_counter() - started
    whole = merged(tmp_path / "whole")
    assert whole.count(b"\n") == 88
    assert len({json.loads(line)["text"] for line in whole.splitlines()}) > 20, "answers differ"
    draw, kills, starts = Random(1), 0, 0
    while starts < 60:
        starts += 1
        kills += killed(draw.uniform(0.2, 0.6) * took, checkpoint, data, tmp_path / "killed", Shard())
        if len(merged(tmp_path / "killed").splitlines()) == 88:
            break
    print(f"\n{kills} kills in {starts} starts of a run of {took:.1f} s")
    assert kills >= 2
    assert merged(tmp_path / "killed") == whole
    killed(0.4 * took, checkpoint, data, tmp_path / "shards", Shard(1, 2))
    for index in (1, 0):
        work(checkpoint, data, tmp_path / "shards", Shard(index, 2))
    assert merged(tmp_path / "shards") == whole


@pytest.mark.full
def test_the_command_survives_a_kill(checkpoint, data, tmp_path):
    line = [sys.executable, "-m", "regap_patch.cli", "eval", "run", "--model", str(checkpoint)]
    line += ["--tasks", f"custom={data}", "--image_mode", "none,real", "--batch_size", "2", "--device", "cpu"]
    line += ["--gen_kwargs", "max_new_tokens=48", "--no_parity", "--output_path", str(tmp_path / "run")]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = tmp_path / "run/answers/custom/none/part-0.jsonl"
    limit = time.monotonic() + 120
    while not part.exists() and time.monotonic() < limit:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = part.read_bytes()
    assert 0 < before.count(b"\n") < 44
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert "found answered" in done.stdout
    assert part.read_bytes().startswith(before[: before.rfind(b"\n") + 1][:-1])
    assert len(merged(tmp_path / "run").splitlines()) == 44


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments: object) -> None:
        raise AssertionError("something asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")


def asked(checkpoint: Path, data: Path, output_path: Path, *more: str) -> list[str]:
    line = ["eval", "run", "--model", str(checkpoint), "--tasks", f"custom={data}", "--device", "cpu"]
    line += ["--image_mode", "none,words,blank,real", "--gen_kwargs", "max_new_tokens=8", "--offline"]
    return [*line, "--output_path", str(output_path), *more]


def test_from_benchmark_to_report_without_a_network(
    checkpoint, other_checkpoint, data, tmp_path, capsys, no_network
):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["eval", "list"]) == 0
    assert "custom" in capsys.readouterr().out
    assert main(["eval", "check", "--tasks", f"custom={data}"]) == 0
    assert "custom: 22 test; yours" in capsys.readouterr().out
    for model, run in ((checkpoint, first), (other_checkpoint, second)):
        for shard in ("0", "1"):
            line = asked(model, data, run, "--batch_size", "4", "--num_shards", "2", "--shard", shard)
            assert main(line) == 0
        assert "missing" not in capsys.readouterr().out.splitlines()[-2]
        assert main(asked(model, data, run, "--batch_size", "4")) == 0
        said = capsys.readouterr().out
        assert "Batches change no answer: 32 items are the same at batch 1 and 4 in float32." in said
        assert "0 of 88 items answered now, 88 found answered" in said
    assert merged(first) != merged(second)
    line = ["eval", "plan", "--tasks", f"custom={data}", "--image_mode", "none,real", "--like", str(first)]
    assert main(line) == 0
    assert "44 answers" in capsys.readouterr().out
    for run in (first, second):
        assert main(["eval", "judge", str(run), "--judges", "keyword-own,refusal-rules-own"]) == 0
    assert main(["eval", "score", str(first), str(second)]) == 0
    assert main(["eval", "compare", str(first), str(second), "--output_path", str(tmp_path / "c.json")]) == 0
    assert len(json.loads((tmp_path / "c.json").read_text())["contrasts"]) == 8
    assert main(["eval", "report", str(first), str(second), "--output_path", str(tmp_path / "report")]) == 0
    assert "custom" in (tmp_path / "report" / "report.html").read_text()
    metrics = json.loads((first / "metrics.json").read_text())
    assert {cell["n"] for cell in metrics["cells"] if cell["scenario"] is None} == {22}
    assert {cell["batch_parity"] for cell in metrics["cells"]} == {True}


def test_sentences(checkpoint, other_checkpoint, data, tmp_path, capsys):
    def refused(line: list[str]) -> str:
        assert main(line) == 1
        return capsys.readouterr().err

    run = tmp_path / "run"
    first = asked(checkpoint, data, run, "--batch_size", "4", "--no_parity", "--num_shards", "2")
    assert main([*first, "--shard", "0"]) == 0
    capsys.readouterr()
    moved = tmp_path / "moved"
    shutil.copytree(checkpoint, moved)
    second = asked(moved, data, run, "--batch_size", "4", "--no_parity", "--num_shards", "2", "--shard", "1")
    shutil.copyfile(other_checkpoint / "model.safetensors", moved / "model.safetensors")
    assert "checkpoint that has changed since (model/model.safetensors): put the old files back" in refused(
        second
    )
    shutil.copyfile(checkpoint / "model.safetensors", moved / "model.safetensors")
    other = refused([*second, "--conv_mode", "llava_llama_2"])
    assert "target.template 'vicuna_v1' there and 'llava_llama_2' now" in other
    assert main(second) == 0, "the same weights elsewhere are the same run"
    capsys.readouterr()
    elsewhere = asked(checkpoint, data, tmp_path / "other")
    assert "The defence 'cmrn' was asked for, but there is none" in refused([*elsewhere, "--defense", "cmrn"])
    assert "say which of 0 to 1 this process is" in refused([*elsewhere, "--num_shards", "2"])
    assert "image mode 'pink' was asked for" in refused([*elsewhere, "--image_mode", "pink"])
    assert "--gen_kwargs holds 'beams=3'" in refused([*elsewhere, "--gen_kwargs", "beams=3"])
    assert "--gen_kwargs holds top_p=x, which is no number" in refused(
        [*elsewhere, "--gen_kwargs", "top_p=x"]
    )
    assert "benchmark 'none_such' was asked for" in refused([*elsewhere, "--tasks", "none_such"])
    assert "items.jsonl cannot be opened" in refused([*elsewhere, "--tasks", f"custom={tmp_path}"])
    assert "Nothing is asked" in refused([*elsewhere, "--tasks", ""])
    assert "profile 'huge' was asked for" in refused([*elsewhere, "--profile", "huge"])
    assert "No model was named" in refused(["eval", "run", "--tasks", "custom", "--output_path", str(run)])
    assert "holds no config.json" in refused([*elsewhere, "--model", str(data)])
    assert "there is no such folder" in refused([*elsewhere, "--model", "./nowhere"])
    assert "needs --model_args pretrained=" in refused([*elsewhere, "--model", "llava"])
    assert "needs --model_args base_url=...,model=..." in refused([*elsewhere, "--model", "endpoint"])
    far = ["--model", "endpoint", "--model_args", "base_url=http://far.example/v1,model=m"]
    assert "far.example is another machine" in refused([*elsewhere, *far])
    assert not (tmp_path / "other" / "manifest.json").exists()
