"""`regap.json`, beside every checkpoint: what was asked, how alpha came about, and what the gap did."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from regap_patch.errors import CalibrationError
from regap_patch.patch.config import ReGapConfig
from regap_patch.version import __version__

SIDECAR = "regap.json"
METHOD = "ReGap (arXiv 2505.24208); the surrogate loss and the rule for alpha are this project's choice"


def write_sidecar(folder: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write `regap.json` into a folder (made if absent), whole or not at all."""
    path = Path(folder) / SIDECAR
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{SIDECAR}.{os.getpid()}")
    aside.write_text(json.dumps(content, indent=2) + "\n")
    aside.replace(path)


def read_sidecar(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The `regap.json` of a folder; None where there is none."""
    path = Path(folder) / SIDECAR
    content: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
    return content


def refuse_other_config(content: dict[str, Any], config: ReGapConfig, folder: str | os.PathLike[str]) -> None:
    """A resumed run must ask for what it was started with; permission to fine-tune aside.

    Raises:
        CalibrationError: naming the settings that differ.
    """
    stored, asked = {**ReGapConfig().to_dict(), **content["config"]}, config.to_dict()
    differ = [name for name in asked if name != "allow_finetune" and asked[name] != stored.get(name)]
    if differ:
        pairs = ", ".join(f"{name}={stored.get(name)!r} (now {asked[name]!r})" for name in differ)
        raise CalibrationError(
            f"{Path(folder) / SIDECAR} was written by a run with {pairs}: resume with the same --regap_* "
            f"flags, or start in another output folder."
        )


def versions() -> dict[str, str]:
    """What computed this run: Python, this package, and those of the stack that are loaded."""
    loaded: dict[str, str] = {
        name: str(sys.modules[name].__version__)
        for name in ("torch", "transformers", "accelerate", "deepspeed", "peft")
        if hasattr(sys.modules.get(name), "__version__")
    }
    return {"regap_patch": __version__, "python": platform.python_version(), **loaded}


def fingerprint(dataset: Any) -> dict[str, Any]:
    """Which data a run saw: kind, length, and the SHA-256 of its file where the data set names one."""
    path = getattr(getattr(dataset, "data_args", None), "data_path", None)
    digest = None
    if path is not None and Path(path).is_file():
        total = hashlib.sha256()
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
        digest = total.hexdigest()
    return {
        "class": type(dataset).__name__,
        "samples": len(dataset) if hasattr(dataset, "__len__") else None,
        "file": None if path is None else str(path),
        "sha256": digest,
    }
