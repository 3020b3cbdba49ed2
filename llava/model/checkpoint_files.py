"""Read what a checkpoint folder or hub repository holds, without building a model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
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
    """
    path = find_file(checkpoint, "config.json")
    if path is None:
        raise FileNotFoundError(
            f"'{checkpoint}' has no config.json; pass the folder (or hub name) of a checkpoint that was "
            "saved completely."
        )
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def read_tensors(
    checkpoint: str | os.PathLike[str], prefix: str, *, local_only: bool = False
) -> dict[str, Tensor]:
    """Tensors of a checkpoint whose name starts with `prefix`, keyed by the rest of the name; {} for none.

    Only the files that hold such tensors are opened; safetensors are read one tensor at a time.
    """
    path = find_weights(checkpoint, local_only=local_only)
    if path is None:
        return {}
    files = [path]
    if path.endswith(".index.json"):
        with open(path, encoding="utf-8") as file:
            shards: dict[str, str] = json.load(file)["weight_map"]
        names = sorted({shard for key, shard in shards.items() if key.startswith(prefix)})
        found = [find_file(checkpoint, name, local_only=local_only) for name in names]
        files = [name for name in found if name is not None]
    return {
        key.removeprefix(prefix): tensor for file_path in files for key, tensor in _tensors(file_path, prefix)
    }


def _tensors(path: str, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if path.endswith(".safetensors"):
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                if key.startswith(prefix):
                    yield key, file.get_tensor(key)
        return
    import torch

    for key, tensor in torch.load(path, map_location="cpu", weights_only=True, mmap=True).items():
        if key.startswith(prefix):
            yield key, tensor
