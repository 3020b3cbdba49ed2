"""Read a LLaVA of any layout and write one whole checkpoint: `python -m llava.model.consolidate --help`."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any


def consolidate_ckpt(
    src_path: str,
    dst_path: str | os.PathLike[str],
    model_base: str | None = None,
    torch_dtype: Any = None,
) -> None:
    """Write weights (a LoRA adapter merged, the vision tower beside), settings and tokenizer to a new folder.

    Args:
        src_path: folder or hub name of anything that `load_pretrained_model` reads.
        dst_path: folder that is made; files appear in it when all are complete.
        model_base: the language model under a projector or an adapter; adapters name theirs.
        torch_dtype: of the weights; float16 as ever.

    Raises:
        FileExistsError: the new folder holds files already.
        FileNotFoundError: a part of the source is missing.
        ValueError: a source that is not loaded here, or an adapter on weights of 4 or 8 bits.
    """
    from llava.model.builder import load_pretrained_model
    from llava.model.layouts import TOWER_FOLDER, read_layout
    from llava.model.publishing import write_tokenizer
    from llava.train.checkpoint import written_aside
    from llava.train.saved_files import make_savable

    refuse_filled(dst_path)
    layout = read_layout(src_path, model_base)
    if layout.adapter is not None and layout.quantised_by is not None:
        raise ValueError(
            f"'{layout.weights}' is quantised ({layout.quantised_by}), and an adapter cannot be merged into "
            "such weights; pass the checkpoint that it was made from as --model-base."
        )
    tokenizer, model, _, _ = load_pretrained_model(
        src_path, model_base, device="cpu", device_map={"": "cpu"}, torch_dtype=torch_dtype
    )
    make_savable(model)
    with written_aside(dst_path) as folder:
        model.save_pretrained(folder)
        write_tokenizer(tokenizer, folder)
        if layout.tower is not None and os.path.isdir(layout.tower):
            shutil.copytree(layout.tower, folder / TOWER_FOLDER)


def refuse_filled(folder: str | os.PathLike[str]) -> None:
    """Old files beside new ones would make a checkpoint of both.

    Raises:
        FileExistsError: the folder is there and not empty.
    """
    if Path(folder).exists() and any(Path(folder).iterdir()):
        raise FileExistsError(f"'{folder}' holds files already; pass a new folder to write to.")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m llava.model.consolidate",
        description="Write one whole checkpoint in float16, in safetensors and with current settings, from a "
        "LLaVA of another layout: shards, old files, or an adapter that names its base.",
        epilog="example: python -m llava.model.consolidate --src llava-v1.5-7b --dst llava-v1.5-7b-whole",
    )
    made.add_argument("--src", required=True, help="folder or hub name of the checkpoint to read")
    made.add_argument("--dst", required=True, help="new folder to write to")
    return made


def main() -> None:
    """The command."""
    args = parser().parse_args()
    consolidate_ckpt(args.src, args.dst)
    print(f"Written to {args.dst}")


if __name__ == "__main__":
    from llava.eval.command_line import run

    run(main, FileExistsError, FileNotFoundError, ValueError)
