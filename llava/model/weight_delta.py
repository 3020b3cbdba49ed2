"""Deltas: a model published as its difference from a base that may not be passed on.

Both directions work file by file, so they need the memory of one file, not of two models, and do not ask
which family the models are of.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from llava.model.checkpoint_files import check_weight_files, list_weight_files, open_tensors, read_config
from llava.model.consolidate import refuse_filled

# What a LLaVA has and its language model has not.
_OWN_PARTS = ("mm_projector.", "image_newline", "vision_tower.", "vision_resampler.")
# Tables with a row for each token: the LLaVA may have more of them.
_TOKEN_TABLES = ("embed_tokens.weight", "lm_head.weight", "wte.weight")
_DERIVED = "rotary_emb.inv_freq"
_SETTINGS = (".json", ".model", ".txt", ".jinja")


def subtract_base(base: str, target: str, delta: str | os.PathLike[str]) -> None:
    """Write `target - base`, with target's settings and tokenizer; errors as `add_base`."""
    _combine(target, base, delta, sign=-1)


def add_base(base: str, target: str | os.PathLike[str], delta: str) -> None:
    """Write `delta + base`, with delta's settings and tokenizer.

    Each tensor is computed and written in the dtype that it has in the delta. Of token tables with more rows
    than the base's, only the common block changes; what only a LLaVA has (projector, tower) is whole in both.

    Args:
        base: folder or hub name of the language model.
        target: folder that is made; files appear in it when all are complete.
        delta: folder or hub name.

    Raises:
        FileExistsError: the new folder holds files already.
        FileNotFoundError: weights or a configuration are missing.
        ValueError: the two do not belong together.
    """
    _combine(delta, base, target, sign=1)


def _combine(source: str, base: str, output: str | os.PathLike[str], *, sign: int) -> None:
    from safetensors.torch import save_file

    from llava.train.checkpoint import written_aside

    refuse_filled(output)
    source, base = _local_folder(source), _local_folder(base)
    held = {name: read for path in list_weight_files(base) for name, read in open_tensors(path).items()}
    places: dict[str, str] = {}
    total = 0
    with written_aside(output) as folder:
        for path in list_weight_files(source):
            changed = {
                name: _changed(name, read(), held, sign=sign, base=base)
                for name, read in open_tensors(path).items()
                if not name.endswith(_DERIVED)
            }
            file = f"{Path(path).stem.replace('pytorch_model', 'model')}.safetensors"
            save_file(changed, folder / file, metadata={"format": "pt"})
            places |= dict.fromkeys(changed, file)
            total += sum(tensor.nbytes for tensor in changed.values())
        if len(set(places.values())) > 1:
            index = {"metadata": {"total_size": total}, "weight_map": places}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
        for file_path in Path(source).iterdir():
            if file_path.suffix in _SETTINGS and not file_path.name.endswith(".index.json"):
                shutil.copyfile(file_path, folder / file_path.name)


def _changed(
    name: str, tensor: Tensor, held: Mapping[str, Callable[[], Tensor]], *, sign: int, base: str
) -> Tensor:
    tensor = tensor.clone()  # of its own memory: files are mapped
    if name not in held:
        if not any(part in name for part in _OWN_PARTS):
            raise ValueError(
                f"The base '{base}' has no {name}, which is not a part that only a LLaVA has; pass the base "
                "that the delta belongs to."
            )
        return tensor
    other = held[name]().to(tensor.dtype)
    if other.shape == tensor.shape:
        return tensor.add_(other, alpha=sign)
    if name.endswith(_TOKEN_TABLES) and len(other) <= len(tensor) and other.shape[1] <= tensor.shape[1]:
        tensor[: len(other), : other.shape[1]].add_(other, alpha=sign)
        return tensor
    raise ValueError(
        f"{name} has the shape {tuple(tensor.shape)}, and {tuple(other.shape)} in the base '{base}'; pass "
        "the base that the delta belongs to."
    )


def _local_folder(checkpoint: str) -> str:
    """The checkpoint as a folder, fetched from the hub if it is a name there; complete."""
    read_config(checkpoint)  # refuses what is neither
    if not os.path.isdir(checkpoint):
        from huggingface_hub import snapshot_download

        checkpoint = snapshot_download(checkpoint)
    check_weight_files(checkpoint)
    if not list_weight_files(checkpoint):
        raise FileNotFoundError(f"'{checkpoint}' holds no weights; pass a folder whose saving was completed.")
    return checkpoint
