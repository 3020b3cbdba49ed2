"""The runner of a study: killed, crowded out or out of room, it says so in a sentence and goes on later."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from regap_patch.errors import StudyError
from regap_patch.study import study_run
from regap_patch.study.protocol import Protocol, may_report_primary, read_protocol
from regap_patch.study.store import Node, is_done
from regap_patch.study.study_run import Choice, read_study, results_commits, run_study
from tests.unit.study_pieces import contents, made, study_of
from tests.unit.study_protocols import commit_all, write_protocol

ROOT = Path(__file__).parents[2]
LEAVES_AN_ORPHAN = """
import pathlib, sys
from regap_patch.study.lock import held
from regap_patch.study.study_run import StoreBoard
from tests.unit.study_pieces import made
root = pathlib.Path(sys.argv[1])
wait = "touch $0/began; while [ ! -e $0/over ]; do sleep 0.1; done"
child = "import subprocess, sys; subprocess.run(['sh', *sys.argv[1:]], close_fds=False)"
node = made(root / "store", "main/tower", "tower", {"seed": 0})
node = node.by([sys.executable, "-c", child, "-c", wait, root])
with held(root, "") as lock:
    StoreBoard(root / "store", [node], [lock]).run(1)
"""
PAUSE = 0.1


@pytest.fixture
def protocol(tmp_path: Path) -> Protocol:
    return read_protocol(write_protocol(tmp_path))


def run(protocol: Protocol, root: Path, nodes: list[Node], choice: Choice | None = None) -> None:
    run_study(protocol, nodes, root, root / "store", choice or Choice(), jobs=2)


def start(root: Path, **options: object) -> subprocess.Popen[str]:
    """The toy study in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.toy_study", str(root), str(PAUSE)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def until(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def working_on(root: Path) -> list[int]:
    """Processes whose command names the folder, this one left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if str(root / "store").encode() in words and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


def assert_no_half_pieces(root: Path, nodes: list[Node]) -> None:
    """What counts is whole, and so is all that it was made from."""
    by_key = {node.key: node for node in nodes}
    for node in nodes:
        if is_done(node):
            assert all(is_done(by_key[key]) for key in node.made_from["needs"])
            assert all(path.read_text().endswith(" whole") for path in node.output.glob("file-*"))


def test_a_study_is_made_once_and_says_what_it_is(protocol: Protocol, tmp_path: Path, capsys):
    root = tmp_path / "study"
    nodes = study_of(root / "store")
    run(protocol, root, nodes, Choice(only="pilot"))
    assert sum(map(is_done, nodes)) == 6
    run(protocol, root, nodes)
    assert all(map(is_done, nodes))
    before = {path: path.stat().st_mtime_ns for path in (root / "store").rglob("file-*")}
    capsys.readouterr()
    run(protocol, root, nodes)
    assert f"{len(nodes)} of {len(nodes)} pieces lie in" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (root / "store").rglob("file-*")}
    found = read_study(root)
    assert found["protocol"]["sha256"] == protocol.sha256
    assert (root / "protocol.yaml").read_text() == protocol.text
    assert {name: (root / folder).resolve() for name, folder in found["branches"].items()} == {
        node.name: node.output for node in nodes
    }
    assert [entry["only"] for entry in found["runs"]] == ["pilot", None, None]


def test_every_piece_is_made_with_one_thread_whatever_the_user_set(
    protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    root = tmp_path / "study"
    node = made(root / "store", "main/tower", "tower", {"seed": 0})
    code = "import os, sys; os.makedirs(os.path.join(sys.argv[1], os.environ['OMP_NUM_THREADS']))"
    run(protocol, root, [node.by([sys.executable, "-c", code, node.output])])
    assert (node.output / "1").exists()


def test_a_script_takes_no_knob_from_the_shell_of_the_user(
    protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """EPOCHS=3 from a line before would train otherwise under the same key."""
    monkeypatch.setenv("EPOCHS", "3")
    monkeypatch.setenv("DRY_RUN", "1")
    root = tmp_path / "study"
    node = made(root / "store", "main/llm-1/stage1", "stage1", {"seed": 0})
    script = 'mkdir "$0" && echo "${EPOCHS:-one} ${DRY_RUN:-no} ${SEED:-none}" > "$0/knobs"'
    run(protocol, root, [node.by(["bash", "-c", script, node.output], environment={"SEED": 7})])
    assert (node.output / "knobs").read_text() == "one no 7\n"


def test_a_piece_is_made_by_the_code_that_its_key_names(
    protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`python -m` prefers the folder that it is started in: there may be another clone."""
    other = tmp_path / "clone" / "regap_patch"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    monkeypatch.chdir(other.parent)
    root = tmp_path / "study"
    node = made(root / "store", "main/tower", "tower", {"seed": 0})
    code = "import pathlib, sys, regap_patch; p = pathlib.Path(sys.argv[1]); p.mkdir(); "
    code += "(p / 'by').write_text(regap_patch.__file__)"
    run(protocol, root, [node.by([sys.executable, "-c", code, node.output])])
    assert (node.output / "by").read_text() == str(ROOT / "regap_patch" / "__init__.py")


def test_two_branches_of_one_recipe_are_made_once(protocol: Protocol, tmp_path: Path):
    root = tmp_path / "study"
    main, narrow = (
        made(root / "store", f"{name}/llm-1/base", "base", {"seed": 1}, llm=1) for name in ("main", "narrow")
    )
    behind = made(root / "store", "narrow/llm-1/measures", "measures", {}, narrow, part="exploratory", llm=1)
    run(protocol, root, [main, narrow, behind])
    assert (main.output / "file-0").read_text().count("whole") == 1
    assert is_done(behind)
    assert len(read_study(root)["branches"]) == 3


def test_killed_at_three_random_moments_it_ends_with_equal_trees(protocol: Protocol, tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(protocol, whole, study_of(whole / "store", pause=PAUSE))
    seed = random.SystemRandom().randrange(10**6)
    print(f"moments of seed {seed}")
    moments, kills = random.Random(seed), 0
    nodes = study_of(killed / "store", pause=PAUSE)
    while kills < 3:
        process = start(killed, start_new_session=True)
        until(partial(working_on, killed))
        time.sleep(moments.uniform(0.0, 0.8))
        os.kill(process.pid, signal.SIGKILL)  # the runner alone, not its children
        process.communicate(timeout=30)
        until(lambda: not working_on(killed), 5.0)
        assert_no_half_pieces(killed, nodes)
        kills += 1
    assert not all(map(is_done, nodes)), "it was over before the last kill"
    last = start(killed)
    assert last.wait(60) == 0, last.communicate()
    assert contents(killed / "store") == contents(whole / "store")


def test_a_killed_child_is_a_sentence_with_the_end_of_its_log(protocol: Protocol, tmp_path: Path):
    root = tmp_path / "study"
    nodes = study_of(root / "store")
    code = "import os; print('step 7 of 9', flush=True); os.kill(os.getpid(), 9)"
    bad = nodes.index(next(node for node in nodes if node.name == "main/llm-2/base"))
    broken = [*nodes]
    broken[bad] = nodes[bad].by([sys.executable, "-c", code])
    with pytest.raises(
        StudyError,
        match=r"'main/llm-2/base' was killed by SIGKILL; its log is .*\.log and ends so:\n  step 7",
    ):
        run(protocol, root, broken)
    assert_no_half_pieces(root, nodes)
    assert not is_done(nodes[bad])
    run(protocol, root, nodes)
    assert all(map(is_done, nodes))


def test_a_child_that_was_killed_from_outside_leaves_nothing_that_counts(protocol: Protocol, tmp_path: Path):
    root = tmp_path / "study"
    process = start(root)
    until(lambda: [pid for pid in working_on(root) if pid != process.pid])
    victim = working_on(root)[0]
    os.kill(victim, signal.SIGKILL)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "was killed by SIGKILL" in said
    assert "Traceback" not in said
    assert not working_on(root)
    assert_no_half_pieces(root, study_of(root / "store", pause=PAUSE))


def test_a_second_runner_is_sent_away_and_disturbs_nothing(tmp_path: Path, protocol: Protocol):
    root = tmp_path / "study"
    first = start(root)
    until(partial(working_on, root))
    second = start(root)
    said = second.communicate(timeout=60)[1]
    assert second.returncode == 1
    assert said.strip() == (
        f"{root} was to be worked on, but another process is at it, number {first.pid}: wait for it, or name "
        "another --output_path."
    )
    assert first.wait(60) == 0
    assert all(map(is_done, study_of(root / "store", pause=PAUSE)))


def test_an_orphan_that_escaped_keeps_the_folder_held(protocol: Protocol, tmp_path: Path, monkeypatch):
    """A grandchild outlives its killed parent; as long as it may write, nobody makes anything there."""
    root = tmp_path / "study"
    process = subprocess.Popen([sys.executable, "-c", LEAVES_AN_ORPHAN, str(root)], cwd=ROOT)
    until((root / "began").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    monkeypatch.setattr("regap_patch.study.lock.PATIENCE", 0.3)
    with pytest.raises(StudyError, match="left behind by an earlier run"):
        run(protocol, root, study_of(root / "store"))
    (root / "over").touch()
    monkeypatch.setattr("regap_patch.study.lock.PATIENCE", 30.0)
    run(protocol, root, study_of(root / "store"))
    assert all(map(is_done, study_of(root / "store")))


def test_a_polite_end_takes_the_children_along(protocol: Protocol, tmp_path: Path):
    root = tmp_path / "study"
    process = start(root)
    until(partial(working_on, root))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert not working_on(root)
    assert_no_half_pieces(root, study_of(root / "store", pause=PAUSE))


def test_a_full_disk_under_a_child_is_a_sentence(protocol: Protocol, tmp_path: Path):
    root = tmp_path / "study"
    code = (
        "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'big').write_bytes(b'0' * 10**6)"
    )
    node = made(root / "store", "main/tower", "tower", {"seed": 0})
    small = node.by([sys.executable, "-c", code, node.output])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StudyError, match=r"'main/tower' ended with status 1 \(the disk is full\)"):
            run(protocol, root, [small])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not is_done(small)
    run(protocol, root, [small])
    assert is_done(small)


@pytest.mark.parametrize("where", ["write_record", "write_study"])
def test_a_full_disk_under_the_runner_is_a_sentence(
    protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    root = tmp_path / "study"
    nodes = study_of(root / "store", seeds=(2,))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(study_run, where, full)
        with pytest.raises(
            StudyError, match=r"The disk of .* is full .*make room, and the same line goes on"
        ):
            run(protocol, root, nodes)
    assert not any(map(is_done, nodes))
    run(protocol, root, nodes)
    assert all(map(is_done, nodes))


def test_a_changed_recipe_under_a_cached_folder_stops_before_anything_is_made(
    protocol: Protocol, tmp_path: Path
):
    root = tmp_path / "study"
    nodes = study_of(root / "store", seeds=(2,))
    run(protocol, root, nodes, Choice(llms=(2,)))
    record = nodes[1].output / "node.json"
    said = json.loads(record.read_text())
    record.write_text(json.dumps(said | {"recipe": {"seed": 3}}))
    with pytest.raises(StudyError, match=r"'main/llm-2/base' with recipe.seed 2 .* made with recipe.seed 3"):
        run(protocol, root, study_of(root / "store"))
    assert not any(is_done(node) for node in study_of(root / "store") if node.llm == 1)


def test_code_that_changes_while_a_study_runs_stops_it(protocol: Protocol, tmp_path: Path):
    root = tmp_path / "study"
    nodes = study_of(root / "store", seeds=(2,))
    old = replace(nodes[-1], made_from=nodes[-1].made_from | {"code": "old"})
    with pytest.raises(StudyError, match="code that makes 'main/llm-2/regap/measures' was changed since"):
        run(protocol, root, [*nodes[:-1], old])
    assert_no_half_pieces(root, nodes)


def test_code_that_changes_while_a_piece_is_made_leaves_nothing_that_counts(
    protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / "study"
    node = made(root / "store", "main/tower", "tower", {"seed": 0})
    seen = iter([node.made_from["code"], "edited"])  # when it starts, and when it is done
    with monkeypatch.context() as patched:
        patched.setattr(study_run, "digest_of_code", lambda code: next(seen))
        with pytest.raises(StudyError, match="code that makes 'main/tower' was changed since"):
            run(protocol, root, [node])
    assert (node.output / "file-2").exists()
    assert not is_done(node)
    run(protocol, root, [node])
    assert_no_half_pieces(root, [node])
    assert is_done(node)


def test_an_edited_protocol_reports_no_primary_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From the file to the sentence, by what a run leaves."""
    path = write_protocol(tmp_path)
    commit_all(tmp_path, "protocol")
    later = commit_all(tmp_path, "code")
    monkeypatch.setattr(study_run, "commit", lambda: later)
    root, protocol = tmp_path / "study", read_protocol(path)
    nodes = study_of(root / "store", seeds=(2,))
    run(protocol, root, nodes)

    def verdict() -> tuple[bool, str]:
        made_under = read_study(root)["protocol"]["sha256"]
        return may_report_primary(read_protocol(path), made_under=made_under, commits=results_commits(nodes))

    assert results_commits(nodes) == [later]
    assert verdict()[0], verdict()
    path.write_text(path.read_text().replace("level: 0.95", "level: 0.90"))
    assert not verdict()[0]
    commit_all(tmp_path, "a narrower interval")
    assert "another text" in verdict()[1]
    run(read_protocol(path), root, nodes)  # nothing is left to make: the results stay older than the edit
    assert "no ancestor" in verdict()[1]
