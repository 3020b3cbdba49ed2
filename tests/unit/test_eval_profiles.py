"""Profiles name what there is, and a task asks in the modes that its items can be in."""

from __future__ import annotations

import argparse

import pytest

from regap_patch.commands.eval_run import add_asking, tasks_of
from regap_patch.errors import BenchmarkError, ConfigError
from regap_patch.records import IMAGE_MODES
from regap_patch.safety.benchmarks import BENCHMARKS, adapter_of
from regap_patch.safety.profiles import PROFILES
from regap_patch.safety.tasks import Task, count_items
from tests.unit.evaluation_items import make_items


def tasks(*flags: str) -> list[Task]:
    parser = argparse.ArgumentParser()
    add_asking(parser)
    return tasks_of(parser.parse_args(flags))


@pytest.mark.parametrize("name", list(PROFILES))
def test_profiles_name_what_there_is(name):
    parts = PROFILES[name].parts
    assert len({part.benchmark for part in parts}) == len(parts)
    for part in parts:
        known = adapter_of(part.benchmark).BENCHMARK
        assert part.split is None or part.split in known.splits, part
        assert set(part.image_modes) <= set(IMAGE_MODES)
        assert known.images or "real" not in part.image_modes, part
        assert known.images or "irrelevant" not in part.image_modes, part
        if known.kind == "harm":
            assert {"none", "words", "blank"} <= set(part.image_modes), "the contrast is the headline"


def test_paper_leaves_nothing_out():
    asked = {part.benchmark for part in PROFILES["paper"].parts}
    assert asked == set(BENCHMARKS) - {"world", "custom"}


def test_flags_take_precedence(tmp_path):
    made = {
        task.name: task for task in tasks("--profile", "quick", "--data_root", str(tmp_path), "--limit", "3")
    }
    assert set(made) == {part.benchmark for part in PROFILES["quick"].parts}
    assert {task.limit for task in made.values()} == {3}
    assert made["pope"].root == tmp_path / "pope"
    (task,) = tasks("--profile", "quick", "--tasks", f"figstep={tmp_path}", "--image_mode", "none,grey")
    assert (task.name, task.root, task.image_modes, task.split) == (
        "figstep",
        tmp_path,
        ("none", "grey"),
        "tiny",
    )
    text, seeing = tasks("--tasks", "xstest,mossbench", "--image_mode", "none,real")
    assert (text.image_modes, seeing.image_modes) == (("none",), ("none", "real"))
    with pytest.raises(ConfigError, match="--limit is 0: at least one item is asked"):
        tasks("--tasks", "xstest", "--limit", "0")
    with pytest.raises(ConfigError, match="Nothing is asked"):
        tasks()
    with pytest.raises(BenchmarkError, match="The benchmark 'blorp' was asked for, but there are"):
        tasks("--tasks", "blorp")


def test_items_are_counted_by_mode(tmp_path):
    data = make_items(tmp_path / "data", 6)
    (task,) = tasks("--tasks", f"custom={data}", "--image_mode", "none,real", "--limit", "4")
    assert count_items(task) == {"none": 4, "real": 4}
