"""Read what a checkpoint folder or hub repository holds, without building a model."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import Tensor

WEIGHT_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)


def find_file(checkpoint: str | os.PathLike[str], name: str, *, local_only: bool = False) -> str | None:
    """Path of one file of a checkpoint, None when there is no such file.

    Args:
        checkpoint: folder, or a hub name (then the file is taken from the hub's cache, or fetched).
        name: file name inside it.
        local_only: do not ask the hub for what is not cached.
    """
    if os.path.isdir(checkpoint):
        path = os.path.join(checkpoint, name)
        return path if os.path.isfile(path) else None
    if not _may_be_hub_name(str(checkpoint)):
        return None
    from transformers.utils import cached_file

    return cached_file(
        str(checkpoint),
        name,
        local_files_only=local_only,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def find_weights(checkpoint: str | os.PathLike[str], *, local_only: bool = False) -> str | None:
    """Path of the weights (or of their index), in the order of preference of transformers."""
    paths = (find_file(checkpoint, name, local_only=local_only) for name in WEIGHT_FILES)
    return next((path for path in paths if path is not None), None)


def read_config(checkpoint: str | os.PathLike[str]) -> dict[str, Any]:
    """`config.json` as it is in the file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no JSON object.
    """
    path = find_file(checkpoint, "config.json")
    if path is None:
        raise FileNotFoundError(
            f"'{checkpoint}' has no config.json; pass the folder (or hub name) of a checkpoint that was "
            "saved completely."
        )
    return read_object(path)


def read_object(path: str) -> dict[str, Any]:
    """One of a checkpoint's JSON files.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except ValueError as error:
        raise ValueError(f"'{path}' is not JSON ({error}); copy the checkpoint again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"'{path}' is a {type(found).__name__}, not an object; copy the checkpoint again.")
    return found


def list_weight_files(
    checkpoint: str | os.PathLike[str], prefix: str = "", *, local_only: bool = False
) -> list[str]:
    """Paths of the weight files that hold tensors whose name starts with `prefix`; [] for none.

    Raises:
        FileNotFoundError: the index of a folder names a file that is not there.
    """
    path = find_weights(checkpoint, local_only=local_only)
    if path is None:
        return []
    if not path.endswith(".index.json"):
        return [path]
    shards: dict[str, str] = read_object(path)["weight_map"]
    names = sorted({shard for key, shard in shards.items() if key.startswith(prefix)})
    found = {name: find_file(checkpoint, name, local_only=local_only) for name in names}
    missing = [name for name, shard in found.items() if shard is None]
    if missing and os.path.isdir(checkpoint):
        raise FileNotFoundError(
            f"'{checkpoint}' lacks {len(missing)} of {len(names)} weight files ({', '.join(missing[:3])}), "
            f"which {os.path.basename(path)} names; copy the whole folder again."
        )
    return [shard for shard in found.values() if shard is not None]


def check_weight_files(checkpoint: str | os.PathLike[str]) -> None:
    """Look whether the weight files of a folder are all there and whole, without reading tensors.

    Raises:
        FileNotFoundError: one is missing.
        ValueError: one ends too early, as after a torn copy or a full disk.
    """
    if not os.path.isdir(checkpoint):  # the hub's client checks what it fetches
        return
    for path in list_weight_files(checkpoint):
        check_weight_file(path)


def check_weight_file(path: str) -> None:
    """The same for one file.

    Raises:
        ValueError: it ends too early.
    """
    if not _is_whole(path):
        raise ValueError(
            f"The weight file '{path}' is torn: it has {os.path.getsize(path)} bytes, fewer than its own "
            "list of tensors needs; copy it again."
        )


def read_tensors(
    checkpoint: str | os.PathLike[str], prefix: str, *, local_only: bool = False
) -> dict[str, Tensor]:
    """Tensors of a checkpoint whose name starts with `prefix`, keyed by the rest of the name; {} for none.

    Only the files that hold such tensors are opened; safetensors are read one tensor at a time.

    Raises:
        FileNotFoundError: the index of a folder names a file that is not there.
    """
    files = list_weight_files(checkpoint, prefix, local_only=local_only)
    return {
        key.removeprefix(prefix): tensor for path in files for key, tensor in iterate_tensors(path, prefix)
    }


def iterate_tensors(path: str, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of one weight file, safetensors or torch's, one after the other."""
    for key, read in open_tensors(path).items():
        if key.startswith(prefix):
            yield key, read()


def open_tensors(path: str) -> dict[str, Callable[[], Tensor]]:
    """What reads each tensor of one weight file, by name; memory is taken when it is called."""
    if path.endswith(".safetensors"):
        from safetensors import safe_open

        file = safe_open(path, framework="pt")
        return {key: partial(file.get_tensor, key) for key in file.keys()}  # noqa: SIM118 - not a dict
    import torch

    # Files of before torch 1.6 are no archives, and cannot be mapped.
    mapped = zipfile.is_zipfile(path)
    tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    return {key: partial(tensors.__getitem__, key) for key in tensors}


def _may_be_hub_name(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _is_whole(path: str) -> bool:
    """Whether the file is as long as its own list of contents says."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(8)
        if not path.endswith(".safetensors"):
            return size > 0 and (start[:2] != b"PK" or zipfile.is_zipfile(path))
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            return False
        header = json.loads(file.read(length))
    ends = (entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__")
    return size >= 8 + length + max(ends, default=0)
