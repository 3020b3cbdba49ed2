"""`pip install ./regap_patch` beside upstream LLaVA: nothing else changes, and the command answers at
once."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest

from tests.upstream.environment import python_path

PATCH = Path(__file__).parents[2] / "regap_patch"
STATE = """
import importlib.metadata, importlib.util, json
versions = {}
for found in importlib.metadata.distributions():  # in the order of the path: what counts is the first
    versions.setdefault(found.metadata["Name"].lower(), found.version)
print(json.dumps({"versions": versions, "llava": importlib.util.find_spec("llava").origin}))
"""
HELP = """
import importlib.metadata, sys
(command,) = importlib.metadata.entry_points(group="console_scripts", name="regap")
sys.argv = ["regap", "--help"]
try:
    status = command.load()()
except SystemExit as end:
    status = end.code
assert not status, status
heavy = {"torch", "transformers", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints, run where no variable or folder leads back to this repository."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own that sees everything in upstream's: installing writes here, pip decides as if
    there.

    Upstream's environment is shared with other tests and clones. What pip finds in it counts as installed;
    pip does not remove it, but would install another version here, in front of it, which the test sees.
    """
    home = tmp_path_factory.mktemp("install") / "environment"
    shared = python_path()
    run(shared, "-m", "venv", "--without-pip", home, cwd=home.parent)
    purelib = Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))
    theirs = sysconfig.get_path("purelib", "venv", {"base": str(shared.parents[1])})
    (purelib / "upstream.pth").write_text(theirs + "\n")
    return home


@pytest.fixture(scope="module")
def installed(environment: Path) -> tuple[dict, dict]:
    """The state of the environment before and after the patch layer came in."""
    python = environment / "bin" / "python"
    before = json.loads(run(python, "-c", STATE, cwd=environment))
    source = environment.parent / "regap_patch"  # a copy: building leaves folders beside the sources
    shutil.copytree(PATCH, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    run(python, "-m", "pip", "install", "--no-build-isolation", "./regap_patch", cwd=environment.parent)
    return before, json.loads(run(python, "-c", STATE, cwd=environment))


def test_no_version_changes_and_llava_stays_upstreams(installed: tuple[dict, dict]):
    before, after = installed
    assert before["versions"]["llava-torch"] == "1.2.2.post1"
    assert set(after["versions"]) - set(before["versions"]) == {"regap-patch"}
    after["versions"].pop("regap-patch")
    assert after == before


def test_every_module_is_installed(installed: tuple[dict, dict], environment: Path):
    home = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)})) / "regap_patch"
    assert python_files(home) == python_files(PATCH)


def test_help_answers_within_a_second(installed: tuple[dict, dict], environment: Path):
    run(environment / "bin" / "python", "-c", HELP, cwd=environment)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        printed = run(environment / "bin" / "regap", "--help", cwd=environment)
        seconds.append(time.perf_counter() - start)
    assert "quickstart" in printed
    assert statistics.median(seconds) < 1.0


def python_files(folder: Path) -> set[Path]:
    return {
        path.relative_to(folder)
        for path in folder.rglob("*.py")
        if "build" not in path.relative_to(folder).parts
    }
