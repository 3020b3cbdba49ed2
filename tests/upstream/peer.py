"""The client of `worker.py`: upstream LLaVA, alive in its own environment, as an object with a `call`."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from tests.upstream.environment import python_path

WORKER = Path(__file__).with_name("worker.py")


class PeerError(RuntimeError):
    """Upstream raised, died or did not answer in time."""


class Peer:
    """One worker process, started by `with Peer() as upstream:` and ended with the block."""

    def __enter__(self) -> Peer:
        self._folder = tempfile.TemporaryDirectory(prefix="regap-peer-")
        self._log = Path(self._folder.name) / "log.txt"
        self._count = 0
        python = python_path()
        # PYTHONPATH could put our llava before theirs.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
        environment.setdefault("OMP_NUM_THREADS", "1")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                cwd=self._folder.name,
            )
        self._replies: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def call(self, operation: str, *, timeout_seconds: float = 180, **arguments: Any) -> Any:
        """Has one operation of `operations.py` done by upstream.

        Raises:
            PeerError: upstream raised (its traceback is in the text), died, or took longer than
            `timeout_seconds`,
                which ends it: a late reply must not be taken for the next one.
        """
        self._count += 1
        reply_path = Path(self._folder.name) / f"{self._count}.pt"
        request = {"operation": operation, "arguments": arguments, "reply_path": str(reply_path)}
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            reply = json.loads(self._replies.get(timeout=timeout_seconds) or "null")
        except queue.Empty:
            self._process.kill()
            raise PeerError(
                f"upstream's {operation} took more than {timeout_seconds:g} s\n{self._log_tail()}"
            ) from None
        except BrokenPipeError:
            reply = None
        if reply is None:
            raise PeerError(f"upstream's process died during {operation}\n{self._log_tail()}")
        if not reply["ok"]:
            raise PeerError(f"upstream's {operation} raised\n{reply['error']}\n{self._log_tail()}")
        result = torch.load(reply_path, weights_only=True)
        reply_path.unlink()
        return result

    def _listen(self) -> None:
        for line in self._process.stdout:
            self._replies.put(line)
        self._replies.put("")

    def _log_tail(self) -> str:
        return f"The end of its log:\n{self._log.read_text()[-1500:]}"
