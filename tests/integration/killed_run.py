"""The parent of `stalling_run.py`: runs it, and kills it where it stands still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_module(words: list[str], stall_at: str | None = None) -> str:
    """Run a module in a process of its own and return what it said; a run that stalls is killed there."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "STALL_AT": stall_at or "",
    }
    said = []
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tests/integration/stalling_run.py"), *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            said.append(line)
            if line.startswith("STALLED"):
                process.send_signal(signal.SIGKILL)
    assert process.returncode == (-signal.SIGKILL if stall_at else 0), "".join(said[-40:])
    return "".join(said)
