"""JSON and text that appear whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from regap_patch.errors import ReportError


def write_text(path: Path, text: str) -> Path:
    """Write beside the name, then rename.

    Raises:
        ReportError: the disk does not take it.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8", newline="")
        aside.replace(path)
    except OSError as error:
        raise ReportError(
            f"{path} was to be written, but that failed ({error.strerror or error}): make room, or name "
            f"another --output_path."
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return path


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """As `write_text`; numbers that are none become null."""
    return write_text(path, json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(
    path: Path, what: str, remedy: str = "name a file that this version's `regap` wrote"
) -> dict[str, Any]:
    """An object.

    Raises:
        ReportError: no such file, or it holds no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = f"that failed ({type(error).__name__}: {error})"
        raise ReportError(f"{path} was to be read as {what}, but {why}: {remedy}.") from error
    if not isinstance(found, dict):
        why = f"it holds a {type(found).__name__} and no object"
        raise ReportError(f"{path} was to be read as {what}, but {why}: {remedy}.")
    return found


def finite(value: Any) -> Any:
    """Plain JSON values with null in place of numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
