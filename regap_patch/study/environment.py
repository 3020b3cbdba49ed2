"""What is installed here, and a record of it beside every run.

`python -m regap_patch.study.environment --output_path RUN -- COMMAND ...` writes
`RUN/command.json`: the command, the versions that it will run with, and the commit that the code stands at.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from regap_patch.version import __version__

CORE = (
    *("torch", "transformers", "tokenizers", "accelerate", "safetensors"),
    *("sentencepiece", "protobuf", "pillow", "numpy", "tqdm", "pyyaml"),
)


class Optional(NamedTuple):
    """Something that a part of the project wants: a distribution, or a program."""

    name: str
    what_for: str
    remedy: str


PACKAGES = (
    Optional("deepspeed", "ZeRO-2 and ZeRO-3", "pip install 'regap[train]'"),
    Optional("peft", "LoRA", "pip install 'regap[train]'"),
    Optional("bitsandbytes", "4 and 8 bit", "pip install 'regap[quant]'"),
    Optional("flash-attn", "train_mem on CUDA", "pip install --no-build-isolation 'regap[flash]'"),
    Optional("matplotlib", "regap plot", "pip install 'regap[report]'"),
    Optional("gradio", "the demo", "pip install 'regap[demo]'"),
)
PROGRAMS = (
    Optional("g++", "DeepSpeed on CPU compiles one operator", "apt-get install g++"),
    Optional("git", "the commit in the record of a run", "apt-get install git"),
)


def version_of(distribution: str) -> str | None:
    """Installed version, or None; imports nothing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """Python, ours, and everything that we may lean on."""
    packages = [*CORE, *(package.name for package in PACKAGES)]
    ours = {"python": platform.python_version(), "regap": __version__}
    return {**ours, **{name: version_of(name) for name in packages}}


def missing() -> list[Optional]:
    """Optional pieces that are not here."""
    absent = [package for package in PACKAGES if version_of(package.name) is None]
    return absent + [program for program in PROGRAMS if shutil.which(program.name) is None]


def commit() -> str | None:
    """Commit of the checkout that this code lies in, with a `+` if it has changes; None outside of one."""

    def git(*words: str) -> str:
        return subprocess.check_output(
            ["git", *words], cwd=Path(__file__).parent, text=True, stderr=subprocess.DEVNULL, timeout=30
        ).strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def record(output_path: Path, command: Sequence[str]) -> None:
    """Append to `command.json` in the folder of a run what is about to start there."""
    output_path.mkdir(parents=True, exist_ok=True)
    path = output_path / "command.json"
    starts: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    starts.append({"started": now, "command": list(command), "commit": commit(), "versions": versions()})
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(starts, indent=1))
    unfinished.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Record a command and the versions that it will run with.")
    parser.add_argument("--output_path", type=Path, required=True, help="folder of the run")
    parser.add_argument("command", nargs="+", help="the command, after --")
    arguments = parser.parse_args()
    record(arguments.output_path, arguments.command)
