"""Take the projector out of a whole LLaVA: `python scripts/extract_mm_projector.py --help`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("model.mm_projector.", "model.image_newline")


def read_projector(model_path: str) -> dict[str, Tensor]:
    """The projector's tensors by name, and the end of a row of tiles where there is one."""
    from llava.model.checkpoint_files import find_file, read_tensors
    from llava.model.layouts import TRAINED_FILE
    from llava.model.lora_merge import read_trained_file

    trained = find_file(model_path, TRAINED_FILE)
    if trained is not None:
        return {name: tensor for name, tensor in read_trained_file(trained).items() if name.startswith(PARTS)}
    return {part + rest: tensor for part in PARTS for rest, tensor in read_tensors(model_path, part).items()}


def extract(model_path: str, output: Path) -> list[str]:
    """Write a file that `--pretrain_mm_mlp_adapter` reads; it appears when it is complete.

    Returns:
        The names in it.

    Raises:
        FileNotFoundError: no weights, or not all of them.
        ValueError: they have no projector.
    """
    import torch

    from llava.model.checkpoint_files import check_weight_files

    check_weight_files(model_path)
    tensors = {name: tensor.clone() for name, tensor in read_projector(model_path).items()}
    if not any(name.startswith(PARTS[0]) for name in tensors):
        raise ValueError(
            f"'{model_path}' holds no projector (no tensor called {PARTS[0]}*); pass the folder or hub name "
            "of a whole LLaVA or of a LoRA run."
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f"{output.name}.tmp")
    torch.save(tensors, partial)
    os.replace(partial, output)
    return sorted(tensors)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description="Write the projector of a whole LLaVA (safetensors or torch files, sharded or not) or of "
        "a LoRA run as a mm_projector.bin, to start another training from by --pretrain_mm_mlp_adapter. Only "
        "the tensors that it needs are read.",
        epilog="example: python scripts/extract_mm_projector.py --model-path llava-v1.5-7b "
        "--output checkpoints/mm_projector.bin",
    )
    made.add_argument("--model-path", required=True, help="folder or hub name of the checkpoint")
    made.add_argument("--output", required=True, type=Path, help="file to write")
    return made


def main() -> None:
    args = parser().parse_args()
    names = extract(args.model_path, args.output)
    print(f"{len(names)} tensors written to {args.output}: {', '.join(names)}")


if __name__ == "__main__":
    from llava.eval.command_line import run

    run(main, FileNotFoundError, ValueError)
