"""A whole branch, trained and measured twice: bit-equal numbers, though one run was killed three times."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regap_patch.study.branches import branches
from regap_patch.study.protocol import read_protocol
from regap_patch.study.store import is_done, read_record
from regap_patch.study.tabulate import outcomes_of, training_of

ROOT = Path(__file__).parents[2]
PROTOCOL = ROOT / "scripts" / "study" / "quickstart-smoke.yaml"


def start(folder: Path) -> subprocess.Popen[bytes]:
    words = ["study", "run", str(PROTOCOL), "--output_path", str(folder), "--jobs", "2"]
    return subprocess.Popen([sys.executable, "-m", "regap_patch.cli", *words], cwd=ROOT)


def pieces_in(folder: Path) -> int:
    return len(list((folder / "store").glob("*/node.json")))


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_branch_rerun_from_scratch_and_killed_three_times_is_bit_equal(tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(1700) == 0
    seed = random.SystemRandom().randrange(10**6)
    print(f"moments of seed {seed}")
    count, moments = pieces_in(whole), random.Random(seed)
    for threshold in sorted(moments.sample(range(count - 1), 3)):
        process = start(killed)
        while pieces_in(killed) <= threshold and process.poll() is None:
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 4))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    last = start(killed)
    assert last.wait(1700) == 0

    protocol = read_protocol(PROTOCOL)
    first, second = (branches(protocol, folder / "store") for folder in (whole, killed))
    assert [node.key for node in first] == [node.key for node in second]
    assert all(map(is_done, second))
    assert outcomes_of(first) == outcomes_of(second)
    assert training_of(first) == training_of(second)
    for one, other in zip(first, second, strict=True):
        assert read_record(one.output)["command"] == read_record(other.output)["command"]
    for model in (whole / "store").glob("*/*.safetensors"):
        assert model.read_bytes() == (killed / model.relative_to(whole)).read_bytes(), model.parent.name
