"""Files that the page hands out, in a folder that goes with the process and never grows without end."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from pathlib import Path


class KeptFiles:
    """The latest files of a demo.

    Args:
        most: files at once; the oldest goes.
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._folder = tempfile.TemporaryDirectory(prefix="regap-demo-")
        self._files: list[Path] = []
        self._turn = threading.Lock()

    def keep(self, stem: str, suffix: str, data: bytes) -> str:
        """Write a file; its path. The same content is the same file."""
        path = Path(self._folder.name) / f"{stem}-{hashlib.sha256(data).hexdigest()[:12]}{suffix}"
        with self._turn:
            if path in self._files:
                self._files.remove(path)
            else:
                path.write_bytes(data)
            self._files.append(path)
            while len(self._files) > self._most:
                self._files.pop(0).unlink(missing_ok=True)
        return str(path)

    def close(self) -> None:
        """Remove all."""
        self._folder.cleanup()
