"""Which model, prompts and versions a number comes from."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from llava.eval.answers_file import record_path
from llava.eval.json_files import read_json, write_json

PACKAGES = ("regap", "torch", "transformers", "tokenizers", "pillow", "peft", "bitsandbytes")
WEIGHTS = (".safetensors", ".bin")
PROBED = 1 << 20


def versions() -> dict[str, str]:
    """Of Python and of the packages that an answer can depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def model_digest(*paths: str | None) -> str | None:
    """Tells a model from its next training into the same folder; None for names on a hub.

    Of `config.json` all is read; of weights the size, the first and the last MiB, which no step of training
    leaves as they were.
    """
    digest = hashlib.sha256()
    folders = [Path(path).expanduser() for path in paths if path]
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
    relevant = [file for file in files if file.suffix in WEIGHTS or file.name == "config.json"]
    for path in relevant:
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            digest.update(file.read(PROBED))
            if size > 2 * PROBED:
                file.seek(-PROBED, 2)
            digest.update(file.read())
    return digest.hexdigest()[:16] if relevant else None


def write_report(
    output_path: str | None,
    benchmark: str,
    numbers: Mapping[str, Any],
    *,
    answers: str | Path | None,
    references: Mapping[str, str | Path],
) -> None:
    """Write numbers as JSON with what they were computed from; does nothing without a path.

    Args:
        output_path: file to write.
        benchmark: its name.
        numbers: what was counted, with denominators.
        answers: file of a model's answers, if it is known; the record beside it, if there is one, is copied.
        references: files that hold the right answers.
    """
    if output_path is None:
        return
    files = {name: str(path) for name, path in references.items()}
    record = None
    if answers is not None:
        files["answers"] = str(answers)
        record = record_path(answers)
    provenance = {
        "files": {
            name: {"path": path, "sha256": hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()}
            for name, path in files.items()
        },
        "answers": read_json(record) if record and record.is_file() else None,
        "scored_with": versions(),
    }
    write_json(output_path, {"benchmark": benchmark, **numbers, "provenance": provenance}, indent=1)
