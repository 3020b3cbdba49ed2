"""How the answers of a folder are made: written once, and compared by every process that would add to it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from regap_patch.errors import ConfigError, EvaluationError
from regap_patch.records import SCHEMA, Sample, digest, to_line
from regap_patch.safety.target import Decoding
from regap_patch.version import __version__

PACKAGES = ("torch", "transformers", "tokenizers", "pillow")
STARTED = "started"  # of the manifest's entries the one that a second process need not share
MAX_NAMED = 4  # differences in a message


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run asks.

    Attributes:
        decoding: how answers are drawn.
        batch_size: questions at once; also the size of the blocks that are answered, resumed and shared out.
        seed: of sampling, noise, and what stands in a picture's place.
        defense: names of the defence stack joined by "+"; "" for none.
        profile: of which the rest was taken, for the record.

    Raises:
        ConfigError: a batch of nothing.
    """

    decoding: Decoding = field(default_factory=Decoding)
    batch_size: int = 1
    seed: int = 0
    defense: str = ""
    profile: str = ""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}: at least one question is asked at a time.")


def make_manifest(
    target: Mapping[str, Any],
    settings: Settings,
    samples: Mapping[str, Sequence[Sample]],
    started: Mapping[str, Any],
    left_out: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """All that decides the answers, as plain JSON values.

    Args:
        target: its fingerprint.
        settings: of the run.
        samples: of each benchmark, sorted.
        started: what is good to know and decides nothing: where the model lay, on what it ran.
        left_out: of each benchmark uids of items that the target was fitted on.
    """
    fitted = {name: list(uids) for name, uids in sorted((left_out or {}).items()) if uids}
    return {
        "schema": SCHEMA,
        "target": dict(target),
        "decoding": settings.decoding.to_dict(),
        "seed": settings.seed,
        "defense": settings.defense,
        "block_size": settings.batch_size,
        "profile": settings.profile,
        "benchmarks": {name: _described(rows) for name, rows in sorted(samples.items())},
        **({"left_out": fitted} if fitted else {}),
        "versions": _versions(),
        STARTED: {
            **started,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    }


def keyed_target(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the manifest that `records.answer_key` takes as target."""
    policy = {"defense": manifest["defense"], "batch_size": manifest["block_size"]}
    return {**manifest["target"], **policy}


def keyed_decoding(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the manifest that `records.answer_key` takes as decoding."""
    return {**manifest["decoding"], "seed": manifest["seed"]}


def settle(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest, or make sure that the one there says the same.

    Returns:
        The manifest that is there now.

    Raises:
        EvaluationError: the folder is another run's, or the checkpoint or the data changed since it began.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".manifest.{os.getpid()}")
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    unfinished.write_text(text, encoding="utf-8")
    try:
        os.link(unfinished, path)  # of several processes that begin at once, one succeeds
    except FileExistsError:
        there = _read(path)
        _compare(path.parent, there, json.loads(text))
        return there
    finally:
        unfinished.unlink()
    return dict(json.loads(text))


def _described(samples: Sequence[Sample]) -> dict[str, Any]:
    modes = [sample.image_mode for sample in samples]
    return {
        "items": {mode: modes.count(mode) for mode in sorted(set(modes))},
        "samples": digest([to_line(sample) for sample in samples]),
    }


def _versions() -> dict[str, str | None]:
    found = {"regap": __version__, "python": platform.python_version()}
    return found | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{path} cannot be read ({type(error).__name__}: {error}), so it is not known whose answers lie "
            f"beside it: give --output_path another folder."
        ) from error


def _compare(folder: Path, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differing = [name for name in _differences(there, now, "") if not name.startswith(f"{STARTED}.")]
    if not differing:
        return
    weights = [name for name in differing if name.startswith("target.files.")]
    data = [name.split(".")[1] for name in differing if name.startswith("benchmarks.")]
    if len(weights) == len(differing):
        files = ", ".join(name.removeprefix("target.files.") for name in weights[:MAX_NAMED])
        raise EvaluationError(
            f"{folder} holds answers of a checkpoint that has changed since ({files}): put the old files "
            f"back, or give --output_path another folder."
        )
    if len(data) == len(differing):
        raise EvaluationError(
            f"{folder} holds answers to other items or pictures of {', '.join(dict.fromkeys(data))} than are "
            f"asked now: restore the data and the flags that choose from it, or give --output_path another "
            f"folder."
        )
    named = ", ".join(
        f"{name} {_at(there, name)!r} there and {_at(now, name)!r} now" for name in differing[:MAX_NAMED]
    )
    more = f" and {len(differing) - MAX_NAMED} more" if len(differing) > MAX_NAMED else ""
    raise EvaluationError(
        f"{folder} belongs to a run with other settings ({named}{more}): a folder is one run; give "
        f"--output_path another."
    )


def _differences(there: Any, now: Any, name: str) -> Iterator[str]:
    if isinstance(there, Mapping) and isinstance(now, Mapping):
        for key in sorted(set(there) | set(now)):
            yield from _differences(there.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif there != now:
        yield name


def _at(value: Any, name: str) -> Any:
    """The value at a dotted name, whose parts may hold dots themselves (`model.safetensors`)."""
    if not name or not isinstance(value, Mapping):
        return value if not name else None
    for key in value:
        if name == key or name.startswith(f"{key}."):
            return _at(value[key], name[len(key) + 1 :])
    return None
