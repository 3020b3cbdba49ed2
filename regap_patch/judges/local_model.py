"""Judges with weights: a folder or a name of the hub, loaded once, and the hash of what was loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regap_patch.errors import JudgeError

Head = Literal["classification", "generation"]


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A judge's model, ready to be asked.

    Attributes:
        model: in evaluation mode.
        tokenizer: its own.
        revision: of the weights; see `weights_revision`.
        settings: what else may change a score: dtype.
    """

    model: Any
    tokenizer: Any
    revision: str
    settings: dict[str, Any]


def load_local_model(
    name: str, path: str, head: Head, *, device: str = "auto", dtype: str = "auto", offline: bool = False
) -> LocalModel:
    """Load weights for a judge.

    Args:
        name: of the preset, for messages.
        path: folder, or name on the hub.
        head: which class of transformers' reads it.
        device: where it runs; "auto" is cuda where there is one.
        dtype: "auto" is the checkpoint's own.
        offline: nothing is fetched.

    Raises:
        JudgeError: it is not there, gated, or of another kind.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    loader = AutoModelForSequenceClassification if head == "classification" else AutoModelForCausalLM
    numbers = dtype if dtype == "auto" else getattr(torch, dtype)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=offline)
        model = loader.from_pretrained(path, local_files_only=offline, dtype=numbers)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise JudgeError(
            f"{name} was to be loaded from {path}, but that failed ({reason}): download its weights (some "
            f"are gated: accept their licence first) and name the folder with --judge_model {name}=FOLDER."
        ) from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model.eval().to(device)
    commit = getattr(model.config, "_commit_hash", None)
    settings = {"dtype": str(model.dtype).removeprefix("torch.")}
    return LocalModel(model, tokenizer, weights_revision(Path(path), commit), settings)


@contextmanager
def one_batch(name: str, size: int) -> Iterator[None]:
    """No gradients; a batch that does not fit is one sentence.

    Raises:
        JudgeError: out of memory.
    """
    import torch

    try:
        with torch.no_grad():
            yield
    except torch.OutOfMemoryError as error:
        raise JudgeError(
            f"{name} ran out of memory on a batch of {size}: pass a smaller --batch_size; what was judged "
            f"before is kept."
        ) from error


def weights_revision(path: Path, commit: str | None) -> str:
    """The hub's commit, or for a folder the SHA-256 over its weights, config and tokenizer.

    Cost: a folder is read once, a second or so for each gigabyte.
    """
    if not path.is_dir():
        return commit or str(path)
    digest = hashlib.sha256()
    suffixes = {".safetensors", ".bin", ".json", ".model", ".jinja"}
    for file in sorted(path.iterdir()):
        if file.suffix in suffixes and file.is_file():
            digest.update(file.name.encode() + b"\0")
            with file.open("rb") as stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest()[:16]
