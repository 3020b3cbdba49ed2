"""`regap defense fit`: vectors and directions of one checkpoint, from anchors."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regap_patch.commands.eval_run import go_offline
from regap_patch.commands.eval_target import LOCAL_ARGS, target_of
from regap_patch.commands.measuring import Bars, table
from regap_patch.errors import ConfigError

PICTURES = ("blank", "black", "grey", "noise")


def add_fit(steps: Any) -> None:
    """Register the command."""
    parser = steps.add_parser(
        "fit",
        help="measure what a defence needs to know of a checkpoint",
        description="Measure what a defence needs to know of a checkpoint, and write it to a folder, with "
        "hashes of checkpoint and template, and what it was measured on: `regap eval run` leaves that out.",
    )
    defenses = parser.add_subparsers(dest="defense", required=True, metavar="DEFENSE")
    cmrm = _fitting(
        defenses, "cmrm", _fit_cmrm, 'JSON lines with "text", and "uid" and "image" where there are any'
    )
    cmrm.add_argument("--image_folder", type=Path, help='what "image" is relative to (where the file lies)')
    cmrm.add_argument(
        "--image", choices=PICTURES, default="blank", help="the picture that shows nothing (%(default)s)"
    )
    guard = _fitting(
        defenses,
        "vlm_guard",
        _fit_vlm_guard,
        'JSON lines with "harmful" and "harmless", and "uid" where there is one',
    )
    guard.add_argument("--rank", type=int, default=8, help="directions to keep (%(default)s)")
    guard.add_argument(
        "--aligned_model",
        type=Path,
        metavar="FOLDER",
        help="the language model from before it saw, whose states to take, as published (MODEL's own)",
    )


def _fitting(defenses: Any, name: str, run: Callable[[argparse.Namespace], int], anchors: str) -> Any:
    parser = defenses.add_parser(name, help=f"for --defense {name}")
    add = parser.add_argument
    add("model", metavar="MODEL", help="checkpoint's folder or hub name, as for `regap eval run`")
    add("--anchors", type=Path, required=True, help=anchors)
    add("--output_path", type=Path, required=True, help="folder to write")
    add("--model_args", default="", help=f"name=value, commas between: {', '.join(LOCAL_ARGS)}")
    add("--conv_mode", help="LLaVA: conversation template (vicuna_v1); else text with {text} and <image>")
    add("--device", help="where the model runs (a GPU, if there is one)")
    add("--dtype", choices=("float32", "float16", "bfloat16"), help="float32 on the CPU, else float16")
    add("--batch_size", type=int, default=1, help="anchors at once (%(default)s)")
    add("--offline", action="store_true", help="no network: no hub is asked")
    parser.set_defaults(run=run, no_parity=True)
    return parser


def _fit_cmrm(arguments: argparse.Namespace) -> int:
    from regap_patch.defenses.anchors import read_anchors

    anchors = read_anchors(arguments.anchors, arguments.image_folder)
    model = _loaded(arguments)
    from regap_patch.defenses.fit_cmrm import fit_cmrm

    with Bars() as bars:
        fit = fit_cmrm(
            model,
            anchors,
            arguments.output_path,
            image=arguments.image,
            batch_size=arguments.batch_size,
            progress=bars,
        )
    return _say(fit, f"cmrm.vectors={arguments.output_path}")


def _fit_vlm_guard(arguments: argparse.Namespace) -> int:
    from regap_patch.defenses.anchors import read_opposed

    pairs = read_opposed(arguments.anchors)
    model = _loaded(arguments)
    from regap_patch.defenses.fit_vlm_guard import fit_vlm_guard

    aligned = None if arguments.aligned_model is None else _aligned(arguments.aligned_model, model.module)
    with Bars() as bars:
        fit = fit_vlm_guard(
            model,
            pairs,
            arguments.output_path,
            rank=arguments.rank,
            aligned=aligned,
            batch_size=arguments.batch_size,
            progress=bars,
        )
    return _say(fit, f"vlm_guard.directions={arguments.output_path}")


def _loaded(arguments: argparse.Namespace) -> Any:
    """The checkpoint, as defences see it."""
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch_size is {arguments.batch_size}: at least one anchor is run at a time.")
    if arguments.model == "endpoint":
        raise ConfigError("A fit looks inside of a model, and one behind an address is out of reach.")
    go_offline(arguments.offline)
    from regap_patch.commands.defended import LoadedModel

    target = target_of(arguments)[0]
    return LoadedModel(target, target.fingerprint())


def _aligned(folder: Path, like: Any) -> Any:
    """The language model in a folder, where the other one is and as precise."""
    import transformers

    from regap_patch.defenses.fit_vlm_guard import Aligned
    from regap_patch.errors import EvaluationError
    from regap_patch.safety.weights import Files

    files = Files({"aligned": str(folder)}).sha256()
    models: Any = transformers.AutoModelForCausalLM
    try:
        module = models.from_pretrained(folder, dtype=like.dtype).to(like.device).eval()
    except (OSError, ValueError) as error:
        raise EvaluationError(f"The aligned model {folder} cannot be loaded: {error}") from error
    return Aligned(module, files)


def _say(fit: Any, setting: str) -> int:
    layers = fit.about["per_layer"]
    names = list(layers[0])
    rows = [[str(layer["layer"]), *(f"{layer[name]:.4g}" for name in names[1:])] for layer in layers]
    print(table([name.replace("_", " ") for name in names], rows))
    print(f"{len(fit.about['items'])} items, which evaluations leave out")
    print(f"--defense {fit.about['defense']} --defense_args {setting}")
    return 0
