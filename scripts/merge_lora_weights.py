"""Merge a LoRA run into its base, as one whole checkpoint: `python scripts/merge_lora_weights.py --help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description="Merge a LoRA run into its base and write one whole checkpoint: weights in float16 "
        "(vision tower and projector too), settings, tokenizer. Runs on the CPU and needs memory for the "
        "weights once.",
        epilog="example: python scripts/merge_lora_weights.py --model-path checkpoints/llava-v1.5-7b-lora "
        "--save-model-path checkpoints/llava-v1.5-7b-merged",
    )
    made.add_argument("--model-path", required=True, help="folder of the LoRA run, ours or upstream's")
    made.add_argument(
        "--model-base",
        help="the model that it was trained on; left out, the one that its adapter_config.json names",
    )
    made.add_argument("--save-model-path", required=True, help="new folder to write to")
    made.add_argument(
        "--torch-dtype",
        default="float16",
        choices=["float16", "bfloat16", "float32"],
        help="of the weights that are written (default: float16)",
    )
    return made


def main() -> None:
    from llava.model.consolidate import consolidate_ckpt

    args = parser().parse_args()
    consolidate_ckpt(args.model_path, args.save_model_path, args.model_base, args.torch_dtype)
    print(f"Written to {args.save_model_path}; load it without a base.")


if __name__ == "__main__":
    from llava.eval.command_line import run

    run(main, FileExistsError, FileNotFoundError, ValueError)
