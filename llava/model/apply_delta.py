"""Make a model of its delta and its base: `python -m llava.model.apply_delta --help`."""

from __future__ import annotations

import argparse


def apply_delta(base_model_path: str, target_model_path: str, delta_path: str) -> None:
    """Write `base + delta` to a new folder; upstream's signature, and `add_base`'s errors."""
    from llava.model.weight_delta import add_base

    add_base(base_model_path, target_model_path, delta_path)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m llava.model.apply_delta",
        description="Add a base language model to a published delta: the first LLaVAs came that way.",
        epilog="example: python -m llava.model.apply_delta --base-model-path llama-7b "
        "--delta-path liuhaotian/LLaVA-7b-delta-v0 --target-model-path llava-7b",
    )
    made.add_argument("--base-model-path", required=True, help="folder or hub name of the language model")
    made.add_argument("--target-model-path", required=True, help="new folder to write the LLaVA to")
    made.add_argument("--delta-path", required=True, help="folder or hub name of the delta")
    return made


def main() -> None:
    """The command."""
    args = parser().parse_args()
    apply_delta(args.base_model_path, args.target_model_path, args.delta_path)
    print(f"Written to {args.target_model_path}")


if __name__ == "__main__":
    from llava.eval.command_line import run

    run(main, FileExistsError, FileNotFoundError, ValueError)
