"""Blocks, shards, kills and what else happens to the folder of a run, with a target that costs nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from random import Random

import pytest

from regap_patch import records
from regap_patch.errors import BenchmarkError, ConfigError, EvaluationError, RecordsError
from regap_patch.records import Answer, answer_key, read_lines, to_line
from regap_patch.safety import blocks as blocks_module
from regap_patch.safety.benchmarks import custom
from regap_patch.safety.blocks import Shard, blocks_of, item_seed, merge
from regap_patch.safety.folder import RunFolder
from regap_patch.safety.manifest import Settings, keyed_decoding, keyed_target
from regap_patch.safety.parity import parity_sentence
from regap_patch.safety.run import run_evaluation
from regap_patch.safety.target import Decoding, Reply
from regap_patch.safety.tasks import Task
from tests.unit.evaluation_items import FakeTarget, make_items, noisy_picture

MODES = ("none", "words", "noise", "real")
SETTINGS = Settings(batch_size=3, seed=7)


@pytest.fixture
def task(tmp_path):
    return Task(custom, make_items(tmp_path / "data", 10), MODES)


def samples_of(folder: Path) -> list:
    return list(RunFolder(folder).read_samples("custom"))


def keys_of(folder: Path) -> dict:
    manifest = json.loads((folder / "manifest.json").read_text())
    by = keyed_target(manifest), keyed_decoding(manifest)
    return {(sample.uid, sample.image_mode): answer_key(sample, *by) for sample in samples_of(folder)}


def merged(folder: Path) -> str:
    return "".join(map(to_line, merge(RunFolder(folder), samples_of(folder), keys_of(folder))))


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("answers/*/*/part-*.jsonl"))


@pytest.fixture
def whole(task, tmp_path):
    """What a run without any trouble leaves."""
    run_evaluation(FakeTarget(), [task], tmp_path / "whole", SETTINGS)
    return merged(tmp_path / "whole")


def test_blocks_depend_on_nothing_but_the_items(task, tmp_path):
    run_evaluation(FakeTarget(), [task], tmp_path / "run", SETTINGS)
    samples = samples_of(tmp_path / "run")
    made = blocks_of(samples, 3)
    assert [len(block.samples) for block in made] == [3, 3, 3, 1] * 4
    assert [block.number for block in made] == list(range(16))
    Random(0).shuffle(samples)
    assert blocks_of(samples, 3) == made
    assert len({(block.benchmark, block.image_mode) for block in made}) == 4


def test_seeds_are_the_items(task):
    seeds = {item_seed(f"custom/test/{number}", seed) for number in range(50) for seed in range(3)}
    assert len(seeds) == 150
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert item_seed("custom/test/1", 0) == item_seed("custom/test/1", 0)


def test_two_shards_are_one(task, tmp_path, whole):
    for count in (2, 3, 5):
        folder = tmp_path / f"of-{count}"
        asked = []
        for index in reversed(range(count)):
            target = FakeTarget()
            found = run_evaluation(target, [task], folder, SETTINGS, shard=Shard(index, count))
            asked.append(target.asked)
            assert found.missing == 40 - sum(asked)
        assert sum(asked) == 40
        assert max(asked) - min(asked) <= 2 * SETTINGS.batch_size * 2
        assert merged(folder) == whole
        assert len(parts(folder)) > 4
    rest = FakeTarget()
    assert run_evaluation(rest, [task], folder, SETTINGS).missing == 0
    assert rest.asked == 0


class Killed(BaseException):
    pass


def test_killed_anywhere_the_merged_answers_are_the_same(task, tmp_path, whole, monkeypatch):
    """The file is cut at any byte, as a kill between two writes of the system leaves it."""
    draw = Random(3)
    append = records.append_lines

    def torn(path, rows):
        before = path.stat().st_size if path.exists() else 0
        append(path, rows)
        if draw.random() < 0.4:
            os.truncate(path, draw.randint(before, path.stat().st_size))
            raise Killed

    monkeypatch.setattr(blocks_module, "append_lines", torn)
    for attempt in range(4):
        folder, kills = tmp_path / f"run-{attempt}", 0
        count = 1 + attempt % 2
        for index in range(count):
            while True:
                try:
                    run_evaluation(FakeTarget(), [task], folder, SETTINGS, shard=Shard(index, count))
                    break
                except Killed:
                    kills += 1
        assert kills > 3
        assert merged(folder) == whole
        lines = sum(path.read_text().count("\n") for path in parts(folder))
        assert lines == 40, "nothing of a torn block stays"


def test_a_torn_block_is_answered_as_a_whole(task, tmp_path, whole):
    folder = tmp_path / "run"
    run_evaluation(FakeTarget(), [task], folder, SETTINGS)
    part = folder / "answers/custom/real/part-0.jsonl"
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:3] + lines[4:]))  # the middle block of 3 has lost its first
    target = FakeTarget()
    found = run_evaluation(target, [task], folder, SETTINGS)
    assert (target.asked, found.answered, found.found) == (3, 3, 37)
    assert merged(folder) == whole, "an answer that depends on its company is the same again"


def test_the_number_of_shards_may_change(task, tmp_path, whole):
    folder = tmp_path / "run"
    run_evaluation(FakeTarget(), [task], folder, SETTINGS, shard=Shard(1, 4))
    (part,) = [path for path in parts(folder) if "real" in str(path)]
    os.truncate(part, part.stat().st_size - 5)
    run_evaluation(FakeTarget(), [task], folder, SETTINGS, shard=Shard(0, 2))
    run_evaluation(FakeTarget(), [task], folder, SETTINGS, shard=Shard(1, 2))
    assert merged(folder) == whole


def test_what_a_shard_left_torn_is_asked_anew_by_the_line_without_shards(task, tmp_path):
    """Of a server, whose second answer may be another one than its first."""

    class Server(FakeTarget):
        def __init__(self, name: str, fails: int = 0) -> None:
            super().__init__(name)
            self.name, self.calls, self.fails_at = name, 0, fails

        def answer(self, questions, decoding, seeds):
            self.calls += 1
            replies = [Reply(f"{self.name} {self.calls}", 1, "stop") for _ in questions]
            bad = self.calls == self.fails_at
            return [Reply("", 0, "error", error="HTTP 500"), *replies[1:]] if bad else replies

        def fingerprint(self):
            return {"kind": "server"}

    folder = tmp_path / "run"
    for index, fails in ((0, 0), (1, 1)):
        run_evaluation(Server("first", fails), [task], folder, SETTINGS, shard=Shard(index, 2))
    with RunFolder(folder).lock(1).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = [path.read_bytes() for path in parts(folder) if path.stem == "part-1"]
        with pytest.raises(EvaluationError, match="otherwise than another part"):
            run_evaluation(Server("late"), [task], folder, SETTINGS)
        assert before == [path.read_bytes() for path in parts(folder) if path.stem == "part-1"], (
            "another process may be writing them"
        )
    for path in parts(folder):  # as if that had not been tried
        path.write_text("".join(line for line in path.open() if "late" not in line))
    assert run_evaluation(Server("second"), [task], folder, SETTINGS).missing == 0
    rows = [answer for part in parts(folder) for answer in read_lines(part, Answer)]
    assert len(rows) == 40
    assert sum(answer.text.startswith("second") for answer in rows) == 3
    assert run_evaluation(Server("third"), [task], folder, SETTINGS).answered == 0


def keys_in(folder: Path) -> set[str]:
    return {answer.key for part in parts(folder) for answer in read_lines(part, Answer)}


def test_every_setting_changes_every_key(task, tmp_path):
    def run(name, target=None, settings=SETTINGS):
        run_evaluation(target or FakeTarget(), [task], tmp_path / name, settings)
        return keys_in(tmp_path / name)

    first = run("first")
    assert len(first) == 40
    assert run("again") == first
    others = {
        "weights": run("weights", FakeTarget(weights="v")),
        "template": run("template", FakeTarget(template="u")),
        "defense": run("defense", settings=Settings(batch_size=3, seed=7, defense="cmrm")),
        "batch": run("batch", settings=Settings(batch_size=4, seed=7)),
        "seed": run("seed", settings=Settings(batch_size=3, seed=8)),
        "decoding": run("decoding", settings=Settings(Decoding(max_new_tokens=9), batch_size=3, seed=7)),
    }
    for name, keys in others.items():
        assert not keys & first, name
    (task.root / "images" / "3.png").write_bytes(noisy_picture(8, 6, 3))
    assert len(run("picture") - first) == 1, "the real picture of one item"


def test_one_byte_of_a_picture_changes_its_key(task, tmp_path):
    run_evaluation(FakeTarget(), [task], tmp_path / "before", SETTINGS)
    picture = task.root / "images" / "3.png"
    picture.write_bytes(picture.read_bytes() + b"\0")  # behind the end of a PNG: the same pixels
    run_evaluation(FakeTarget(), [task], tmp_path / "after", SETTINGS)
    before, after = keys_of(tmp_path / "before"), keys_of(tmp_path / "after")
    assert {item for item in before if before[item] != after[item]} == {("custom/test/003", "real")}


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        (
            FakeTarget("v"),
            SETTINGS,
            r"a checkpoint that has changed since \(model.safetensors\): put the old",
        ),
        (FakeTarget(template="u"), SETTINGS, "other settings .target.template 't' there and 'u' now"),
        (
            FakeTarget(),
            Settings(batch_size=4, seed=7),
            r"other settings \(block_size 3 there and 4 now\): a folder is one run; give --output_path",
        ),
        (FakeTarget(), Settings(batch_size=3, seed=7, defense="cmrm"), "defense '' there and 'cmrm' now"),
    ],
)
def test_a_folder_is_one_run(task, tmp_path, target, settings, message):
    run_evaluation(FakeTarget(), [task], tmp_path / "run", SETTINGS, shard=Shard(0, 2))
    before = (tmp_path / "run/manifest.json").read_bytes(), keys_in(tmp_path / "run")
    with pytest.raises(EvaluationError, match=message):
        run_evaluation(target, [task], tmp_path / "run", settings, shard=Shard(1, 2))
    assert target.asked == 0
    assert before == ((tmp_path / "run/manifest.json").read_bytes(), keys_in(tmp_path / "run"))


def test_data_that_changed_between_shards(task, tmp_path):
    run_evaluation(FakeTarget(), [task], tmp_path / "run", SETTINGS, shard=Shard(0, 2))
    (task.root / "images" / "3.png").write_bytes(noisy_picture(8, 6, 3))
    with pytest.raises(
        EvaluationError, match="other items or pictures of custom than are asked now: restore"
    ):
        run_evaluation(FakeTarget(), [task], tmp_path / "run", SETTINGS, shard=Shard(1, 2))


def test_a_picture_that_changes_while_it_is_read(task, tmp_path):
    class Meddler(FakeTarget):
        def answer(self, questions, decoding, seeds):
            (task.root / "images" / "9.png").write_bytes(noisy_picture(8, 6, 9))
            return super().answer(questions, decoding, seeds)

    with pytest.raises(EvaluationError, match=r"9.png of custom/test/009 changed while the run read it"):
        run_evaluation(Meddler(), [task], tmp_path / "run", SETTINGS)


def test_two_processes_at_one_shard(task, tmp_path):
    folder = tmp_path / "run"
    run_evaluation(FakeTarget(), [task], folder, SETTINGS)
    with RunFolder(folder).lock(0).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(
            EvaluationError, match=r"Shard 0 of .*run was to be worked on, but another process"
        ):
            run_evaluation(FakeTarget(), [task], folder, SETTINGS)
        run_evaluation(FakeTarget(), [task], folder, SETTINGS, shard=Shard(1, 2))


def test_anothers_answers_in_the_folder(task, tmp_path):
    folder = tmp_path / "run"
    run_evaluation(FakeTarget(), [task], folder, SETTINGS)
    run_evaluation(FakeTarget("v"), [task], tmp_path / "other", SETTINGS)
    part = Path("answers/custom/real/part-0.jsonl")
    (folder / part).with_name("part-1.jsonl").write_bytes((tmp_path / "other" / part).read_bytes())
    with pytest.raises(
        EvaluationError, match=r"part-1.jsonl holds an answer .* two runs wrote into one folder"
    ):
        run_evaluation(FakeTarget(), [task], folder, SETTINGS)


def test_duplicates_must_be_the_same(task, tmp_path, whole):
    folder = tmp_path / "run"
    run_evaluation(FakeTarget(), [task], folder, SETTINGS)
    part = folder / "answers/custom/real/part-0.jsonl"
    double = part.with_name("part-1.jsonl")
    double.write_bytes(part.read_bytes())
    assert merged(folder) == whole
    double.write_text(part.read_text().replace('"num_tokens": 20', '"num_tokens": 21', 1))
    with pytest.raises(EvaluationError, match="otherwise than another part of the same run"):
        run_evaluation(FakeTarget(), [task], folder, SETTINGS)


def test_a_full_disk_is_a_sentence_and_the_rest_is_answered_later(task, tmp_path, whole, monkeypatch):
    folder, calls = tmp_path / "run", []
    fsync = os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 6:  # the first is of the samples
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        EvaluationError, match=r"could not be written to .*part-0.jsonl \(No space left on device\)"
    ):
        run_evaluation(FakeTarget(), [task], folder, SETTINGS)
    monkeypatch.undo()
    run_evaluation(FakeTarget(), [task], folder, SETTINGS)
    assert merged(folder) == whole


def test_a_folder_that_cannot_be_written_is_a_sentence(task, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        EvaluationError, match=r"The run in .*file cannot read or write .*: make room or mend"
    ):
        run_evaluation(FakeTarget(), [task], tmp_path / "file", SETTINGS)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EvaluationError, match=r"cannot read or write its files \(No space left on device\)"):
        run_evaluation(FakeTarget(), [task], tmp_path / "run", SETTINGS)


def test_a_torn_line_in_the_middle_is_a_sentence(task, tmp_path):
    folder = tmp_path / "run"
    run_evaluation(FakeTarget(), [task], folder, SETTINGS)
    part = folder / "answers/custom/real/part-0.jsonl"
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join([lines[0], lines[1][:30] + "\n", *lines[2:]]))
    with pytest.raises(RecordsError, match=r"Line 2 of .*part-0.jsonl is no answer"):
        run_evaluation(FakeTarget(), [task], folder, SETTINGS)


def test_failures_are_rows_and_the_next_run_asks_again(task, tmp_path, whole):
    folder = tmp_path / "run"

    class Flaky(FakeTarget):
        def answer(self, questions, decoding, seeds):
            replies = super().answer(questions, decoding, seeds)
            if self.asked % 2:
                return replies
            return [Reply("", 0, "error", error="HTTP 500"), *replies[1:]]

    found = run_evaluation(Flaky(), [task], folder, SETTINGS)
    assert found.errors == found.missing > 3
    rows = [answer for part in parts(folder) for answer in read_lines(part, Answer)]
    assert len(rows) == 40, "failures stay in the denominator"
    assert {answer.error for answer in rows if not answer.text} == {"HTTP 500"}
    target = FakeTarget()
    assert run_evaluation(target, [task], folder, SETTINGS).missing == 0
    assert target.asked < 40
    assert merged(folder) == whole


def test_a_target_that_is_dead(task, tmp_path):
    target = FakeTarget()
    target.fails = "http://localhost:1/v1: connection refused"
    with pytest.raises(
        EvaluationError, match=r"Nothing answered 3 blocks in a row, .* connection refused; mend"
    ):
        run_evaluation(target, [task], tmp_path / "run", SETTINGS)
    assert target.asked == 9


def test_timings_are_beside_the_answers(task, tmp_path):
    folder = tmp_path / "run"
    run_evaluation(FakeTarget(), [task], folder, SETTINGS)
    lines = [
        json.loads(line) for line in (folder / "trace/custom/real/part-0.jsonl").read_text().splitlines()
    ]
    assert [line["items"] for line in lines] == [3, 3, 3, 1]
    assert all(line["seconds"] >= 0 and line["tokens"] == 20 * line["items"] for line in lines)
    assert "seconds" not in parts(folder)[0].read_text()


def test_parity_is_tried_once_and_said(task, tmp_path):
    bad, good = tmp_path / "bad", tmp_path / "good"
    reference = FakeTarget()
    found = run_evaluation(FakeTarget(), [task], bad, SETTINGS, reference=reference).parity
    assert (found["batch_parity"], found["items"], reference.asked) == (False, 32, 64)
    assert len(found["flips"]) == 32
    sentence = parity_sentence(found)
    assert "32 of 32 items differ between batch 1 and 3 in float32" in sentence
    assert found["flips"][0] == {"uid": "custom/test/000", "image_mode": "noise", "same_characters": 12}
    assert json.loads((bad / "parity.json").read_text()) == found
    run_evaluation(FakeTarget(), [task], bad, SETTINGS, reference=reference)
    assert reference.asked == 64
    found = run_evaluation(
        FakeTarget(company=False), [task], good, SETTINGS, reference=FakeTarget(company=False)
    )
    assert found.parity["batch_parity"] is True
    assert "Batches change no answer: 32 items" in parity_sentence(found.parity)
    for name, settings, shard in (
        ("single", Settings(batch_size=1), Shard()),
        ("drawn", Settings(Decoding(temperature=1.0), batch_size=3), Shard()),
        ("second", SETTINGS, Shard(1, 2)),
    ):
        quiet = FakeTarget()
        run = run_evaluation(FakeTarget(), [task], tmp_path / name, settings, shard=shard, reference=quiet)
        assert (run.parity, quiet.asked) == (None, 0)


def test_what_means_nothing_is_refused(task, tmp_path):
    for wrong, message in (
        (lambda: Shard(2, 2), "Shard 2 of 2 was asked for"),
        (lambda: Settings(batch_size=0), "batch_size is 0"),
        (lambda: Decoding(max_new_tokens=0), "max_new_tokens is 0"),
        (lambda: Decoding(temperature=-1), "temperature is -1"),
        (lambda: Decoding(top_p=0), "top_p is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            wrong()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "items.jsonl").write_text("")
    with pytest.raises(BenchmarkError, match="has no item of the split 'test'"):
        run_evaluation(FakeTarget(), [Task(custom, tmp_path / "empty")], tmp_path / "run", SETTINGS)
    with pytest.raises(EvaluationError, match="asked for twice in one run"):
        run_evaluation(FakeTarget(), [task, task], tmp_path / "run", SETTINGS)
    with pytest.raises(
        BenchmarkError, match=r"custom was to be read from .*nowhere, but .*items.jsonl cannot be"
    ):
        run_evaluation(FakeTarget(), [Task(custom, tmp_path / "nowhere")], tmp_path / "run", SETTINGS)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{")
    with pytest.raises(EvaluationError, match=r"manifest.json cannot be read .* whose answers lie beside it"):
        run_evaluation(FakeTarget(), [task], tmp_path / "run", SETTINGS)
