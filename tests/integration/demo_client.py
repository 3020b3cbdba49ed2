"""A demo in a process of its own: `demo_server`, or whatever else prints its address."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]


def scripted(seconds: float) -> list[str]:
    """A demo of scripted models that take so long for a word."""
    return ["-m", "tests.integration.demo_server", str(seconds)]


class Served:
    """A running demo: `with Served(scripted(0.01)) as served: served.address`.

    Args:
        line: what is run.
        files: where it puts its temporary files; None for the usual place.

    Attributes:
        said: every line of its output.
    """

    def __init__(self, line: list[str], files: Path | None = None) -> None:
        self.said: list[str] = []
        self._ready = threading.Event()
        place = {} if files is None else {"TMPDIR": str(files)}
        self.process = subprocess.Popen(
            [sys.executable, *line],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **place},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if line.startswith("http"):
                self._ready.set()
        self._ready.set()

    @property
    def address(self) -> str:
        return next(line for line in self.said if line.startswith("http"))

    @property
    def lookups(self) -> list[str]:
        return [line for line in self.said if line.startswith("lookup")]

    def memory(self) -> int:
        """Bytes that the process holds now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return 1024 * int(line.split()[1])

    def __enter__(self) -> Served:
        assert self._ready.wait(120), "the demo does not start"
        assert any(line.startswith("http") for line in self.said), "\n".join(self.said)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
