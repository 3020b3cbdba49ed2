"""Commands that wait for one another: each run once, a few at a time, and not again while nothing changed.

A job is done when its stamp says so under the same key: a hash of its command, the code and the keys of
the jobs that it needs. An interrupted job is started again on what it left; one with another key starts anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regap_patch.errors import StudyError

GRACE = 10.0  # seconds between asking a job to end and killing it
NO_SPACE = ("No space left on device", "Disk quota exceeded", "File too large")


@dataclass(frozen=True, slots=True)
class Job:
    """A command with a name and a folder of its own.

    Attributes:
        name: also names its log and its stamp.
        command: words; nothing goes through a shell.
        output: what it makes; removed before a start under another key.
        needs: names of jobs that must be done first.
        environment: variables on top of ours.
        steps: how many steps its progress bar counts to; 0 if it shows none.
        key: says what the output is made from, wherever it lies; None for a hash of command, code and needs.
    """

    name: str
    command: tuple[str, ...]
    output: Path
    needs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    steps: int = 0
    key: str | None = None


def _bar(name: str, width: int, position: int, total: int, begin: int = 0) -> Any:
    """A line that moves, on a terminal."""
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f}% |{bar:30}| {n_fmt}/{total_fmt} [{elapsed}]"
    return tqdm(
        total=total,
        initial=begin,
        desc=f"{name:<{width}}",
        position=position,
        leave=False,
        disable=None,
        bar_format=form,
    )


class _Running:
    """A started job, its log and its bar; it ends with us, and holds till then what we hold."""

    def __init__(
        self, job: Job, log: Path, position: int, width: int, holds: Sequence[int], folder: Path | None
    ) -> None:
        self.job, self.log, self.position = job, log, position
        self.began = time.monotonic()
        starter = (sys.executable, "-I", "-S", str(Path(__file__).with_name("ends_with_parent.py")))
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                (*starter, str(os.getpid()), *job.command),
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | job.environment,
                cwd=folder,
                pass_fds=holds,
            )
        self.bar = _bar(job.name, width, position, job.steps or 1)

    def refresh(self) -> None:
        """Move the bar to the last step that the log counts."""
        with self.log.open("rb") as stream:
            stream.seek(max(0, self.log.stat().st_size - 4096))
            counts = re.findall(rf"\b(\d+)/{self.job.steps} \[".encode(), stream.read())
        if counts:
            self.bar.n = int(counts[-1])
        self.bar.refresh()

    def stop(self) -> None:
        self.bar.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def ending(self) -> str:
        """How it ended, and the end of its log."""
        status = self.process.returncode
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        tail = self.log.read_text(errors="replace").replace("\r", "\n").strip().splitlines()[-15:]
        full = " (the disk is full)" if any(words in "\n".join(tail) for words in NO_SPACE) else ""
        return f"{how}{full}; its log is {self.log} and ends so:\n  " + "\n  ".join(tail)


def code_digest(folders: Sequence[Path]) -> str:
    """SHA-256 over the names and contents of all Python files and shell scripts in folders, and of files."""
    digest = hashlib.sha256()
    for folder in folders:
        files = [*folder.rglob("*.py"), *folder.rglob("*.sh")] if folder.is_dir() else [folder]
        for path in sorted(files):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class Board:
    """The jobs of one output folder and how far they are.

    Args:
        root: folder of logs and stamps.
        jobs: each stands after those that it needs.
        digest: of the code behind them all.
        holds: open files that every job inherits, see `lock.held`.
        folder: in which every job runs; None for ours.
    """

    def __init__(
        self,
        root: Path,
        jobs: Sequence[Job],
        digest: str,
        holds: Sequence[int] = (),
        folder: Path | None = None,
    ) -> None:
        self.root, self.jobs, self.holds = root, {job.name: job for job in jobs}, tuple(holds)
        self.folder = folder
        self.keys: dict[str, str] = {}
        for job in jobs:
            content = [job.command, job.environment, digest, [self.keys[name] for name in job.needs]]
            hashed = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            self.keys[job.name] = job.key or hashed
        self._width = max((len(name) for name in self.jobs), default=0)

    def stamp(self, name: str) -> dict[str, Any]:
        """What is known of a job: `key`, `done`, `seconds`; empty if it never started."""
        path = self.root / "stamps" / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _set_stamp(self, name: str, *, done: bool, seconds: float) -> None:
        path = self.root / "stamps" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps({"key": self.keys[name], "done": done, "seconds": seconds}))
        unfinished.replace(path)

    def is_done(self, name: str) -> bool:
        """Whether a job ran to its end under its present key, and what it made is still there."""
        stamp = self.stamp(name)
        return stamp.get("key") == self.keys[name] and stamp["done"] and self.jobs[name].output.exists()

    def seconds(self) -> dict[str, float]:
        """Seconds that each job took when it ran to its end."""
        return {name: self.stamp(name)["seconds"] for name in self.jobs}

    def log(self, name: str) -> Path:
        """Where what a job says is written."""
        return self.root / "logs" / f"{name.replace(' ', '-')}.log"

    def _start(self, job: Job, position: int) -> _Running:
        if self.stamp(job.name).get("key") != self.keys[job.name] and job.output.exists():
            shutil.rmtree(job.output) if job.output.is_dir() else job.output.unlink()
        self._set_stamp(job.name, done=False, seconds=0.0)
        log = self.log(job.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        return _Running(job, log, position, self._width, self.holds, self.folder)

    def _finish(self, running: _Running, place: int) -> None:
        from tqdm import tqdm

        seconds = time.monotonic() - running.began
        running.bar.close()
        if running.process.returncode != 0 or not running.job.output.exists():
            raise StudyError(f"The step '{running.job.name}' {running.ending()}")
        self._set_stamp(running.job.name, done=True, seconds=round(seconds, 1))
        tqdm.write(f"{running.job.name:<{self._width}} {seconds:6.1f} s  ({place} of {len(self.jobs)})")

    def say_done(self, names: Sequence[str]) -> None:
        """Say which jobs were done before."""
        from tqdm import tqdm

        for name in names:
            tqdm.write(f"{name:<{self._width}} done before ({self.stamp(name)['seconds']:.1f} s)")

    def run(self, parallel: int) -> None:
        """Run what is not done, at most `parallel` at once.

        Raises:
            StudyError: a job failed; the others are stopped, and a later call goes on from there.
        """
        done = [name for name in self.jobs if self.is_done(name)]
        self.say_done(done)
        waiting = [name for name in self.jobs if name not in set(done)]
        running: list[_Running] = []
        whole = _bar("in all", self._width, parallel, len(self.jobs), len(done))
        try:
            while waiting or running:
                ready = [name for name in waiting if {*self.jobs[name].needs} <= {*done}]
                for name in ready[: parallel - len(running)]:
                    free = set(range(parallel)) - {item.position for item in running}
                    running.append(self._start(self.jobs[name], min(free)))
                    waiting.remove(name)
                time.sleep(0.2)
                for item in list(running):
                    if item.process.poll() is None:
                        item.refresh()
                    else:
                        running.remove(item)
                        self._finish(item, len(done) + 1)
                        done.append(item.job.name)
                        whole.update()
        finally:
            whole.close()
            for item in running:
                item.stop()
