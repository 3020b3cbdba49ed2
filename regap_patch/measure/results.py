"""`gap.json` and `mir.json`: what they hold, and that they appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from regap_patch.errors import MeasureError
from regap_patch.gap.integration_rate import MirResult
from regap_patch.gap.layer import ILL_CONDITIONED, LayerTerm
from regap_patch.measure.gap import GapReport
from regap_patch.measure.mir import MirReport
from regap_patch.version import __version__

MIR_SCHEMA, GAP_SCHEMA = "regap.mir/1", "regap.gap/1"
LEVEL = 0.95


def key_of(*parts: Any) -> str:
    """SHA-256 of what a result follows from, and of the code that takes it."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    ours = Path(__file__).parents[1]
    for room in ("gap", "hosts", "measure"):
        for source in sorted((ours / room).glob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()


def is_done(path: Path, key: str) -> bool:
    """Whether the file holds the result of this key."""
    if not path.is_file():
        return False
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")).get("key") == key)
    except (ValueError, AttributeError):
        return False


def read_result(path: Path, schema: str) -> dict[str, Any]:
    """A result as it was written.

    Raises:
        MeasureError: no such file, or one of another schema.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        given = found["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MeasureError(
            f"{path} was to be read as {schema}, but that failed ({type(error).__name__}: {error}): name a "
            f"file that this version's `regap` wrote."
        ) from error
    if given != schema:
        raise MeasureError(
            f"{path} was to be read as {schema}, but its schema is {given}: name a file of the other kind."
        )
    return dict(found)


def write_result(path: Path, content: Mapping[str, Any]) -> Path:
    """Write JSON beside its name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(
            json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def versions() -> dict[str, str]:
    """Of what a result may depend on."""
    loaded = {name: sys.modules.get(name) for name in ("torch", "transformers")}
    found = {name: str(module.__version__) for name, module in loaded.items() if module is not None}
    return {"regap": __version__, **found}


def term_fields(number: int, term: LayerTerm) -> dict[str, Any]:
    """A layer's numbers; its influences and groups stay out, they are in the sum."""
    left_out = ("influence", "without_group")
    row = {part.name: getattr(term, part.name) for part in fields(term) if part.name not in left_out}
    return {"layer": number, **row, "flags": list(term.flags), "norm_ratio": term.norm_ratio}


def mir_fields(report: MirReport) -> dict[str, Any]:
    """The measured part of `mir.json`."""
    result = report.result
    curve = [{"pairs": size, **_value(found)} for size, found in report.curve.items()]
    return {
        "mir": {
            **_value(result),
            "pairs": result.pairs,
            "flags": list(result.flags),
            "jackknife_groups": len(result.per_layer[0].without_group),
        },
        "layer_zero": None if result.layer_zero is None else term_fields(0, result.layer_zero),
        "layers": [term_fields(number, term) for number, term in enumerate(result.per_layer, 1)],
        "curve": curve,
        "influence": None if result.influence is None else result.influence.tolist(),
        "compat": {mode: _compat(found) for mode, found in report.compat.items()},
        "evaluation": report.evaluation,
        "memory": report.memory,
        "rows": report.rows,
        "host": report.host,
        "projections": [projection.to_dict() for projection in report.projections],
    }


def gap_fields(report: GapReport) -> dict[str, Any]:
    """The measured part of `gap.json`."""
    return {
        "corpus": report.corpus,
        "mean": report.mean,
        "stderr": report.stderr,
        "samples": report.samples,
        "host": report.host,
    }


def _compat(result: MirResult) -> dict[str, Any]:
    """A number of the published script's, and where it is not determined to 1e-5."""
    layers = [number for number, term in enumerate(result.per_layer, 1) if ILL_CONDITIONED in term.flags]
    terms = [term.frechet for term in result.per_layer]
    return {"value": result.value, "reason": result.reason, "ill_conditioned_layers": layers, "terms": terms}


def _value(result: MirResult) -> dict[str, Any]:
    interval = result.interval(LEVEL)
    low, high = (None, None) if interval is None else interval
    return {
        "value": result.value,
        "stderr": result.stderr,
        "corrected": result.corrected,
        "low": low,
        "high": high,
        "level": LEVEL,
        "reason": result.reason,
    }


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null stands for it, and `reason` says why."""
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
