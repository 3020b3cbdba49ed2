"""The store: a folder is named by what it was made from, and is not believed without looking."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from regap_patch.errors import StudyError
from regap_patch.study import store as store_module
from regap_patch.study.store import Node, check_node, is_done, plan_node, read_record, write_record
from regap_patch.study.study_plan import plan_study
from regap_patch.study.study_run import Choice, choose
from tests.unit.study_pieces import CODE, made, study_of


def finish(node: Node, seconds: float = 1.0) -> None:
    node.output.mkdir(parents=True)
    (node.output / "weights").write_text("1234")
    write_record(node, seconds, "commit")


def test_all_that_a_piece_is_made_from_is_in_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    base = plan_node(tmp_path, "a", "base", {"seed": 1}, code=CODE)
    assert base.output == tmp_path / f"base-{base.key[:16]}"
    others = [
        plan_node(tmp_path, "a", "base", {"seed": 2}, code=CODE),
        plan_node(tmp_path, "a", "bases", {"seed": 1}, code=CODE),
        plan_node(tmp_path, "a", "base", {"seed": 1}, code=("regap_patch/errors.py",)),
        plan_node(tmp_path, "a", "base", {"seed": 1}, code=CODE, needs=[base]),
    ]
    monkeypatch.setattr(store_module, "_versions", lambda: {"torch": "0"})
    others.append(plan_node(tmp_path, "a", "base", {"seed": 1}, code=CODE))
    assert len({base.key, *(other.key for other in others)}) == 6


def test_names_and_places_are_not_in_the_key(tmp_path: Path):
    first = plan_node(tmp_path, "main/llm-1", "base", {"band": (1, 2), "seed": 1}, code=CODE, llm=1)
    again = plan_node(tmp_path / "moved", "narrow/llm-1", "base", {"seed": 1, "band": [1, 2]}, code=CODE)
    assert first.key == again.key


def test_code_that_is_not_there_is_a_sentence(tmp_path: Path):
    with pytest.raises(StudyError, match=r"made by regap_patch/absent\.py, but no such code"):
        plan_node(tmp_path, "a", "base", {}, code=["regap_patch/absent.py"])


def test_a_folder_counts_with_its_record_and_not_before(tmp_path: Path):
    node = made(tmp_path, "a", "base", {"seed": 1})
    node.output.mkdir()
    assert not is_done(node)
    write_record(node, 2.0, "commit")
    assert is_done(node)
    check_node(node)
    found = read_record(node.output)
    assert (found["recipe"], found["key"], found["seconds"], found["commit"]) == (
        *({"seed": 1}, node.key),
        *(2.0, "commit"),
    )
    assert not any(str(tmp_path) in word or sys.executable in word for word in found["command"])


def test_a_store_may_move(tmp_path: Path):
    finish(made(tmp_path / "here", "a", "base", {"seed": 1}))
    (tmp_path / "here").rename(tmp_path / "there")
    check_node(made(tmp_path / "there", "a", "base", {"seed": 1}))


def test_a_changed_seed_under_a_cached_llm_is_a_sentence(tmp_path: Path):
    one, two = (made(tmp_path, f"main/llm-{seed}/base", "base", {"seed": seed}) for seed in (1, 2))
    finish(one)
    shutil.copytree(one.output, two.output)
    with pytest.raises(
        StudyError, match=r"'main/llm-2/base' with recipe.seed 2 .* made with recipe.seed 1: remove"
    ):
        check_node(two)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda found: found["recipe"].update(seed=7), "made with recipe.seed 7"),
        (lambda found: found["made_from"].update(code="0"), "made with made_from.code '0'"),
        (
            lambda found: found["made_from"]["versions"].update(torch="1"),
            "made with made_from.versions.torch '1'",
        ),
        (lambda found: found.update(kind="tower"), "made with kind 'tower'"),
        (lambda found: found.update(key="0" * 64), "its folder says 0000000000000000"),
        (lambda found: found.pop("recipe"), "cannot be read"),
    ],
)
def test_a_record_that_says_something_else_is_a_sentence(tmp_path: Path, change, sentence: str):
    node = made(tmp_path, "a", "base", {"seed": 1})
    finish(node)
    path = node.output / "node.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(StudyError, match=sentence):
        check_node(node)


def test_a_setting_that_its_recipe_leaves_out_is_a_sentence(tmp_path: Path):
    node = made(tmp_path, "a", "base", {"seed": 1})
    finish(node)
    hidden = replace(node, environment={"BATCH_SIZE": "16"})
    with pytest.raises(StudyError, match=r"with environment.BATCH_SIZE None and would now be made with '16'"):
        check_node(hidden)
    other = node.by([*node.command[:-1], "2.0"], steps=3)
    with pytest.raises(StudyError, match="say the difference in its recipe"):
        check_node(other)


def test_a_file_that_is_gone_or_cut_is_a_sentence(tmp_path: Path):
    node = made(tmp_path, "a", "base", {"seed": 1})
    finish(node)
    (node.output / "more").touch()
    check_node(node)
    (node.output / "weights").write_text("12")
    with pytest.raises(StudyError, match=r"weights had 4 bytes when it was made and has 2 bytes: remove"):
        check_node(node)
    (node.output / "weights").unlink()
    with pytest.raises(StudyError, match="is gone"):
        check_node(node)


def test_a_part_brings_what_it_rests_on(tmp_path: Path):
    nodes = study_of(tmp_path)

    def names(**fields: object) -> set[str]:
        return {node.name.removeprefix("main/") for node in choose(nodes, Choice(**fields))}

    assert names() == {node.name.removeprefix("main/") for node in nodes}
    assert names(only="pilot") == {
        *("tower", "llm-9/base", "llm-9/off/stage1", "llm-9/off/measures"),
        *("llm-9/regap/stage1", "llm-9/regap/measures"),
    }
    assert names(only="exploratory") == {
        "tower",
        "llm-1/base",
        "llm-1/norm_match/stage1",
        "llm-1/norm_match/measures",
    }
    assert names(only="primary", llms=(2,)) == {
        *("tower", "llm-2/base", "llm-2/off/stage1", "llm-2/off/measures"),
        *("llm-2/regap/stage1", "llm-2/regap/measures"),
    }
    with pytest.raises(StudyError, match=r"no LLM 3 in this study: Known are 1, 2, 9\."):
        names(llms=(3,))
    with pytest.raises(StudyError, match="has no primary part for the LLMs 9: `--dry-run`"):
        names(only="primary", llms=(9,))


def test_the_plan_counts_folders_and_takes_times_from_pieces_of_the_kind(tmp_path: Path):
    nodes = study_of(tmp_path)
    other = made(tmp_path, "narrow/llm-1/base", "base", {"seed": 1}, llm=1)  # the folder of main/llm-1/base
    by_name = {node.name: node for node in nodes}
    finish(by_name["main/llm-1/base"], seconds=10.0)
    finish(by_name["main/tower"], seconds=5.0)
    finish(by_name["main/llm-1/off/stage1"], seconds=40.0)
    finish(by_name["main/llm-1/regap/stage1"], seconds=60.0)
    finish(by_name["main/llm-1/off/measures"], seconds=2.0)
    plan = plan_study([*nodes, other], tmp_path, jobs=2)
    found = {kind.kind: kind for kind in plan.kinds}
    assert [(kind.pieces, kind.done, kind.recorded) for kind in found.values()] == [
        *((1, 1, 1), (3, 1, 1)),
        *((7, 2, 2), (7, 1, 1)),
    ]
    assert (found["base"].seconds, found["stage1"].seconds, found["measures"].seconds) == (20.0, 250.0, 12.0)
    assert plan.seconds == pytest.approx((20 + 250 + 12) / 2)
    assert plan_study(nodes, tmp_path, jobs=100).seconds == pytest.approx(10 + 50 + 2), (
        "one LLM after another step"
    )
    assert plan.size == pytest.approx(4 * (2 + 5 + 6))


def test_the_plan_scales_by_steps_and_falls_back_on_the_table(tmp_path: Path):
    done, more = (made(tmp_path, f"llm-{seed}/base", "base", {"seed": seed}) for seed in (1, 2))
    finish(done, seconds=30.0)
    longer = more.by(more.command, steps=9)
    assert plan_study([longer], tmp_path, jobs=1).seconds == pytest.approx(90.0)
    unseen = plan_study([longer], tmp_path / "empty", jobs=1)
    assert unseen.kinds[0].recorded == 0
    assert unseen.seconds > 0
