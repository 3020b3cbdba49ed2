"""Builds, once, the environment in which upstream LLaVA runs: `python -m tests.upstream.environment`.

It lies in `$REGAP_CACHE` (default `~/.cache/regap`) under a name that holds the hash of
`constraints-upstream.txt` and the Python version, so that a change of either builds another one and several
clones share what is equal.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[2] / "constraints-upstream.txt"
# Their own requirements pin versions that no longer install beside the rest, and would bring in gradio and
# timm.
WITHOUT_REQUIREMENTS = ("llava-torch", "peft")
PIP_TIMEOUT_SECONDS = 900


class EnvironmentBuildError(RuntimeError):
    """The environment of upstream LLaVA cannot be built here."""


def location() -> Path:
    """The folder of the environment, whether it exists or not."""
    cache = Path(os.environ.get("REGAP_CACHE") or Path.home() / ".cache" / "regap")
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(python.encode() + CONSTRAINTS.read_bytes()).hexdigest()[:12]
    return cache.expanduser().resolve() / f"upstream-{digest}"


def python_path() -> Path:
    """The interpreter of the environment, which is built if this is the first call on this machine.

    Raises:
        EnvironmentBuildError: no version of upstream runs on this Python, or pip failed.
    """
    home = location()
    python = home / "bin" / "python"
    if not python.exists():
        with _lock(home):
            if not python.exists():  # another process was faster
                _build(home)
    return python


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(home: Path) -> None:
    if not (3, 9) <= sys.version_info[:2] <= (3, 12):
        raise EnvironmentBuildError(
            f"upstream LLaVA's transformers 4.37 has wheels for Python 3.9 to 3.12, this is Python "
            f"{sys.version_info.major}.{sys.version_info.minor}: make .venv with one of these"
        )
    unfinished = home.with_name(home.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    print(
        f"building upstream LLaVA's environment in {home} (about a minute, 1.1 GB)",
        file=sys.stderr,
        flush=True,
    )
    _run([sys.executable, "-m", "venv", str(unfinished)])
    pip = [str(unfinished / "bin" / "python"), "-m", "pip", "install", "--quiet", "-c", str(CONSTRAINTS)]
    versions = _pins()
    others = [f"{name}=={version}" for name, version in versions.items() if name not in WITHOUT_REQUIREMENTS]
    alone = [f"{name}=={versions[name]}" for name in WITHOUT_REQUIREMENTS]
    for packages in (others[:1], others, ["--no-deps", *alone]):
        print(f"  pip install {' '.join(packages)}", file=sys.stderr, flush=True)
        _run([*pip, *packages])
    # A renamed environment works as long as nobody calls its console scripts: they begin with the old name.
    unfinished.rename(home)


def _pins() -> dict[str, str]:
    """The pinned versions by package, in the order of the file: torch is the first."""
    lines = (line.split("#")[0].strip() for line in CONSTRAINTS.read_text().splitlines())
    return dict(line.split("==") for line in lines if line)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        raise EnvironmentBuildError(
            f"`{' '.join(command)}` ended with status {done.returncode}:\n{done.stderr[-2000:]}"
        )


if __name__ == "__main__":
    print(python_path())
