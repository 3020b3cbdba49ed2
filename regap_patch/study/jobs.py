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
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regap_patch.errors import StudyError


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


class _Running:
    """A started job, its log and its bar."""

    def __init__(self, job: Job, log: Path, position: int) -> None:
        from tqdm import tqdm

        self.job, self.log, self.position = job, log, position
        self.began = time.monotonic()
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                job.command, stdout=stream, stderr=subprocess.STDOUT, env=os.environ | job.environment
            )
        form = "{desc:<24} {percentage:3.0f}% |{bar:30}| {n_fmt}/{total_fmt} [{elapsed}]"
        self.bar = tqdm(
            total=job.steps or 1, desc=job.name, position=position, leave=False, disable=None, bar_format=form
        )

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
            self.process.wait()


def code_digest(folders: Sequence[Path]) -> str:
    """SHA-256 over the names and contents of all Python files and shell scripts in folders, and of files."""
    digest = hashlib.sha256()
    for folder in folders:
        files = [*folder.rglob("*.py"), *folder.rglob("*.sh")] if folder.is_dir() else [folder]
        for path in sorted(files):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class Board:
    """The jobs of one output folder and how far they are."""

    def __init__(self, root: Path, jobs: Sequence[Job], digest: str) -> None:
        self.root, self.jobs = root, {job.name: job for job in jobs}
        self.keys: dict[str, str] = {}
        for job in jobs:  # a job stands after those that it needs
            content = [job.command, job.environment, digest, [self.keys[name] for name in job.needs]]
            hashed = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            self.keys[job.name] = job.key or hashed
        for folder in ("logs", "stamps"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def stamp(self, name: str) -> dict[str, Any]:
        """What is known of a job: `key`, `done`, `seconds`; empty if it never started."""
        path = self.root / "stamps" / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _set_stamp(self, name: str, *, done: bool, seconds: float) -> None:
        path = self.root / "stamps" / f"{name}.json"
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

    def _start(self, job: Job, position: int) -> _Running:
        if self.stamp(job.name).get("key") != self.keys[job.name] and job.output.exists():
            shutil.rmtree(job.output) if job.output.is_dir() else job.output.unlink()
        self._set_stamp(job.name, done=False, seconds=0.0)
        return _Running(job, self.root / "logs" / f"{job.name.replace(' ', '-')}.log", position)

    def _finish(self, running: _Running) -> None:
        from tqdm import tqdm

        seconds = time.monotonic() - running.began
        running.bar.close()
        if running.process.returncode != 0 or not running.job.output.exists():
            tail = running.log.read_text(errors="replace").replace("\r", "\n").strip().splitlines()[-15:]
            raise StudyError(
                f"The step '{running.job.name}' ended with status {running.process.returncode}; its log is "
                f"{running.log} and ends so:\n  " + "\n  ".join(tail)
            )
        self._set_stamp(running.job.name, done=True, seconds=round(seconds, 1))
        tqdm.write(f"{running.job.name:<24} {seconds:6.1f} s")

    def run(self, parallel: int) -> None:
        """Run what is not done, at most `parallel` at once.

        Raises:
            StudyError: a job failed; the others are stopped, and a later call goes on from there.
        """
        from tqdm import tqdm

        waiting = []
        for name in self.jobs:
            if self.is_done(name):
                tqdm.write(f"{name:<24} done before ({self.stamp(name)['seconds']:.1f} s)")
            else:
                waiting.append(name)
        running: list[_Running] = []
        try:
            while waiting or running:
                for name in [name for name in waiting if all(map(self.is_done, self.jobs[name].needs))]:
                    if len(running) < parallel:
                        free = set(range(parallel)) - {item.position for item in running}
                        running.append(self._start(self.jobs[name], min(free)))
                        waiting.remove(name)
                time.sleep(0.2)
                for item in list(running):
                    if item.process.poll() is None:
                        item.refresh()
                    else:
                        running.remove(item)
                        self._finish(item)
        finally:
            for item in running:
                item.stop()
