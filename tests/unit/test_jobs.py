"""Jobs of a quickstart: done once, again when something changed, and a failure says where to look."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from regap_patch.errors import StudyError
from regap_patch.study.jobs import Board, Job, code_digest


def write(path: Path, text: str, **fields: object) -> Job:
    """A job that adds a line to a file in a folder of its own."""
    code = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(exist_ok=True); "
    code += "open(p / 'lines', 'a').write(sys.argv[2] + '\\n')"
    return Job(path.name, (sys.executable, "-c", code, str(path), text), path, **fields)


def lines(path: Path) -> list[str]:
    return (path / "lines").read_text().splitlines()


def run(root: Path, *jobs: Job, digest: str = "code") -> Board:
    board = Board(root, jobs, digest)
    board.run(parallel=2)
    return board


def test_done_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    jobs = write(tmp_path / "one", "a"), write(tmp_path / "two", "b", needs=("one",))
    run(tmp_path, *jobs)
    board = run(tmp_path, *jobs)
    assert (lines(tmp_path / "one"), lines(tmp_path / "two")) == (["a"], ["b"])
    assert set(board.seconds()) == {"one", "two"}
    assert "done before" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["command", "code", "environment"])
def test_a_change_starts_from_nothing_and_so_do_the_jobs_behind_it(tmp_path: Path, change: str):
    behind = write(tmp_path / "two", "b", needs=("one",))
    run(tmp_path, write(tmp_path / "one", "a"), behind, write(tmp_path / "apart", "c"))
    (tmp_path / "two" / "stale").touch()
    environment = {"KNOB": "1"} if change == "environment" else {}
    changed = write(tmp_path / "one", "new" if change == "command" else "a", environment=environment)
    run(
        tmp_path,
        changed,
        behind,
        write(tmp_path / "apart", "c"),
        digest="new" if change == "code" else "code",
    )
    assert lines(tmp_path / "one") == ["new" if change == "command" else "a"]
    assert not (tmp_path / "two" / "stale").exists()


def test_a_job_with_a_key_of_its_own_is_known_by_it_wherever_it_lies(tmp_path: Path):
    first, moved = tmp_path / "first", tmp_path / "moved"
    first.mkdir()
    run(first, write(first / "one", "a", key="made from this"))
    first.rename(moved)
    run(moved, write(moved / "one", "another command", key="made from this"), digest="new")
    assert lines(moved / "one") == ["a"]
    run(moved, write(moved / "one", "b", key="made from that"))
    assert lines(moved / "one") == ["b"]


def test_an_interrupted_job_goes_on_where_it_was(tmp_path: Path):
    job = write(tmp_path / "one", "a")
    board = Board(tmp_path, [job], "code")
    board._set_stamp("one", done=False, seconds=0.0)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "lines").write_text("before\n")
    board.run(parallel=1)
    assert lines(tmp_path / "one") == ["before", "a"]


def test_a_result_that_somebody_removed_is_made_again(tmp_path: Path):
    job = write(tmp_path / "one", "a")
    run(tmp_path, job)
    (tmp_path / "one" / "lines").unlink()
    (tmp_path / "one").rmdir()
    run(tmp_path, job)
    assert lines(tmp_path / "one") == ["a"]


def test_a_failure_names_the_step_the_log_and_its_end_and_stops_the_rest(tmp_path: Path):
    bad = Job("bad", (sys.executable, "-c", "print('the reason'); raise SystemExit(3)"), tmp_path / "bad")
    slow = Job("slow", (sys.executable, "-c", "import time; time.sleep(60)"), tmp_path / "slow")
    began = time.monotonic()
    with pytest.raises(
        StudyError, match=r"'bad' ended with status 3; its log is .*bad\.log[\s\S]*the reason"
    ):
        run(tmp_path, slow, bad, write(tmp_path / "behind", "b", needs=("bad",)))
    assert time.monotonic() - began < 30
    assert not (tmp_path / "behind").exists()
    assert Board(tmp_path, [slow], "code").is_done("slow") is False


def test_the_digest_sees_names_and_contents(tmp_path: Path):
    (tmp_path / "a.py").write_text("1")
    first = code_digest([tmp_path])
    (tmp_path / "notes.txt").write_text("no code")
    assert code_digest([tmp_path]) == first
    (tmp_path / "a.py").write_text("2")
    second = code_digest([tmp_path])
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, code_digest([tmp_path])}) == 3
