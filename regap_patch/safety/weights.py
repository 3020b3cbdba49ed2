"""Which weights these are: SHA-256 of the content of every file that a checkpoint is loaded from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from regap_patch.errors import EvaluationError
from regap_patch.safety.folder import write_whole

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
NOT_WEIGHTS = (
    "optimizer",
    "scheduler",
    "scaler",
    "rng_state",
    "training_args",
)  # of the trainer, not the model
DESCRIBING = (
    *("config.json", "generation_config.json", "adapter_config.json", "special_tokens_map.json"),
    *("preprocessor_config.json", "processor_config.json", "image_processor_config.json"),
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "chat_template.json", "chat_template.jinja"),
)
INDEX = "*.index.json"
CHUNK = 1 << 22
SETTLED = 2.0  # seconds after which a file's times tell a change of it apart


class Files:
    """The files of a checkpoint's parts.

    Args:
        parts: folder or hub name of each part, by a name for people; a hub name stands for its folder in the
            cache, fetched if it is not there and the hub may be asked.

    Raises:
        EvaluationError: a part that is not there, or that holds no weights.
    """

    def __init__(self, parts: Mapping[str, str]) -> None:
        self.paths = {
            f"{part}/{file.name}": file
            for part, path in parts.items()
            for file in _files(part, folder_of(path))
        }
        self._seen = self._stamps()

    def sha256(self) -> dict[str, str]:
        """Of every file, by part and name.

        What was hashed once is known by path, size and times of change (`rsync -t` and `tar` set one of the
        two back, never both), so that a shard does not read 14 GB again that another has read. Delete
        `regap/weights.json` in the user's cache to have all read again.
        """
        self._seen = self._stamps()
        known = _read_cache()
        found, new = {}, {}
        for name, path in self.paths.items():
            state = path.stat()
            stamp = f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}"
            found[name] = known.get(stamp) or _sha256(path)
            if stamp not in known and time.time() - max(state.st_mtime, state.st_ctime) > SETTLED:
                new[stamp] = found[name]
        if new:
            _write_cache({**_read_cache(), **new})
        return found

    def make_sure(self) -> None:
        """To be called when the files have been loaded.

        Raises:
            EvaluationError: one of them has changed since it was hashed.
        """
        now = self._stamps()
        changed = [name for name, stamp in self._seen.items() if now.get(name) != stamp]
        if changed:
            raise EvaluationError(
                f"{self.paths[changed[0]]} changed while it was loaded: wait until whatever writes it is "
                f"done, and run the same command again."
            )

    def _stamps(self) -> dict[str, tuple[int, int, int]]:
        stamps = {}
        for name, path in self.paths.items():
            with contextlib.suppress(OSError):
                state = path.stat()
                stamps[name] = (state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        return stamps


def folder_of(path: str) -> Path:
    """The folder of a checkpoint: itself, or where the hub's cache has it.

    Raises:
        EvaluationError: there is none in reach.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder
    if path.count("/") > 1 or path.startswith((".", "~", "/")):
        raise EvaluationError(f"The checkpoint {path} was asked for, but there is no such folder.")
    from huggingface_hub import snapshot_download

    with contextlib.suppress(Exception):  # not in the cache: asked of the hub below
        cached = Path(snapshot_download(path, local_files_only=True))
        if _is_whole(cached):
            return cached
    try:
        wanted = [*(f"*{end}" for end in WEIGHTS), *DESCRIBING, INDEX]
        return Path(snapshot_download(path, allow_patterns=wanted))
    except Exception as error:  # of the hub's many: gated, no such name, offline and not in the cache
        raise EvaluationError(
            f"The checkpoint {path} was asked for, but it is no folder, and the hub does not give it "
            f"({type(error).__name__}): name a folder, or fetch it first."
        ) from error


def _is_whole(folder: Path) -> bool:
    """Whether weights are there, and every file that an index of theirs names."""
    names = {path.name for path in folder.iterdir()}
    wanted = {
        name
        for index in folder.glob(INDEX)
        for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    }
    return wanted <= names and any(name.endswith(WEIGHTS) for name in names)


def _files(part: str, folder: Path) -> list[Path]:
    every = sorted(path for path in folder.iterdir() if path.is_file())
    weights = [path for path in every if path.suffix in WEIGHTS and not path.name.startswith(NOT_WEIGHTS)]
    if not weights:
        raise EvaluationError(
            f"The {part} was to be taken from {folder}, but no weights lie there: name the folder of a "
            f"checkpoint that was saved completely."
        )
    return sorted([*weights, *(path for path in every if path.name in DESCRIBING)])


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _cache_file() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "regap" / "weights.json"


def _read_cache() -> dict[str, str]:
    try:
        return dict(json.loads(_cache_file().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _write_cache(known: Mapping[str, str]) -> None:
    with contextlib.suppress(OSError):  # a home that cannot be written costs time and nothing else
        write_whole(_cache_file(), json.dumps(known, indent=0, sort_keys=True))
