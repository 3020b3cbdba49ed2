"""Make a delta of a model and its base: `python -m llava.model.make_delta --help`."""

from __future__ import annotations

import argparse


def make_delta(
    base_model_path: str, target_model_path: str, delta_path: str, hub_repo_id: str | None = None
) -> None:
    """Write `target - base` to a new folder, and upload it where a hub repository is named.

    Errors are those of `add_base`.
    """
    from llava.model.weight_delta import subtract_base

    subtract_base(base_model_path, target_model_path, delta_path)
    if hub_repo_id:
        from huggingface_hub import HfApi

        hub = HfApi()
        hub.create_repo(hub_repo_id, exist_ok=True)
        hub.upload_folder(repo_id=hub_repo_id, folder_path=delta_path)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m llava.model.make_delta",
        description="Write the difference of a LLaVA from its base language model, for publishing where the "
        "base may not be passed on. Projector and tower, which the base has not, go in whole.",
        epilog="example: python -m llava.model.make_delta --base-model-path llama-7b "
        "--target-model-path checkpoints/llava-7b --delta-path checkpoints/llava-7b-delta",
    )
    made.add_argument("--base-model-path", required=True, help="folder or hub name of the language model")
    made.add_argument("--target-model-path", required=True, help="folder or hub name of the LLaVA")
    made.add_argument("--delta-path", required=True, help="new folder to write the delta to")
    made.add_argument("--hub-repo-id", help="also upload the delta to this repository (needs a login)")
    return made


def main() -> None:
    """The command."""
    args = parser().parse_args()
    make_delta(args.base_model_path, args.target_model_path, args.delta_path, args.hub_repo_id)
    print(f"Written to {args.delta_path}")


if __name__ == "__main__":
    from llava.eval.command_line import run

    run(main, FileExistsError, FileNotFoundError, ValueError)
