"""`regap mir`: Modality Integration Rate of checkpoints, what two differ by, and what it would cost."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regap_patch.commands.measuring import Bars, add_loading, loading_options, table
from regap_patch.errors import ConfigError, MeasureError

COMPARE = "compare"
USAGE = """regap mir MODEL [MODEL ...] --images FOLDER_OR_JSON --texts SOURCE [--pairs 100] [...]
       regap mir compare A.json B.json
       regap mir --plan {7b,13b} [--pairs 100]"""


def add_mir(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "mir",
        usage=USAGE,
        help="Modality Integration Rate over all layers, exact, with an error bar",
        description="MIR (arXiv 2410.07167) with the exact matrix root over image-text pairs: log10 of the "
        "sum of Frechet terms of layers 1 to K, layer 0 (where ReGap acts) beside it. Writes one JSON for "
        "each checkpoint; what is done and unchanged is not done again. `compare` takes two such files.",
    )
    add = parser.add_argument
    add(
        "models", nargs="*", metavar="MODEL", help="checkpoint: folder or hub name; or: compare A.json B.json"
    )
    add("--images", type=Path, help="folder of images, or a JSON in LLaVA's format")
    add("--image_folder", type=Path, help="what `image` in that JSON is relative to (its folder)")
    add("--texts", type=Path, help="JSON in LLaVA's format, text file (a text a line), story file, or folder")
    add("--pairs", default="100", help="how many; several numbers give a curve: 20,50,100 (%(default)s)")
    add("--seed", type=int, default=0, help="which (%(default)s)")
    add(
        "--pairing",
        choices=("unrelated", "captions"),
        default="unrelated",
        help="images and texts drawn apart, as published, or samples of --texts with their own image",
    )
    add("--layers", action="store_true", help="print every layer, not only the sum")
    add(
        "--project_layers",
        default="0,1,-1",
        help="layers of which a flat picture is kept for `regap plot`; empty for none (%(default)s)",
    )
    add("--jackknife", type=int, help="groups of pairs for the bias correction (10 up to width 1024, else 0)")
    add(
        "--template",
        help="LLaVA: name of a conversation template (vicuna_v1); else text with {text}, <image>",
    )
    add(
        "--compat",
        action="append",
        choices=("mir-accurate", "mir-fast-defect"),
        default=[],
        help="also what the published script says in this mode; may be given twice",
    )
    add("--offload", action="store_true", help="the model stays on the CPU, one layer at a time on --device")
    add("--evaluation", choices=("auto", "layer_major", "streaming"), default="auto", help="(%(default)s)")
    add("--plan", metavar="{7b,13b}", help="print what it would cost, and run nothing")
    add(
        "--output_path", type=Path, help="folder, or a .json file (mir); `compare` writes only if it is given"
    )
    add_loading(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.plan:
        return _plan(arguments)
    if arguments.models[:1] == [COMPARE]:
        return _compare(arguments)
    return _measure(arguments)


def _plan(arguments: argparse.Namespace) -> int:
    from regap_patch.measure.plan import plan_table

    print(plan_table(arguments.plan, pairs=max(_sizes(arguments.pairs))))
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from regap_patch.measure.compare import compare_mir
    from regap_patch.measure.results import write_result

    files = arguments.models[1:]
    if len(files) != 2:
        raise ConfigError(f"`regap mir compare` takes two mir.json files, but got {len(files)}.")
    found = compare_mir(*files)
    if arguments.output_path:
        write_result(arguments.output_path, found.to_dict())
    print(found.sentence())
    return 0


def _measure(arguments: argparse.Namespace) -> int:
    missing = [
        flag
        for flag, given in (
            ("a MODEL", arguments.models),
            ("--images", arguments.images),
            ("--texts", arguments.texts),
        )
        if not given
    ]
    if missing:
        raise ConfigError(f"`regap mir` measures a model on images and texts: give {', '.join(missing)}.")
    sizes = _sizes(arguments.pairs)
    layers = _numbers(arguments.project_layers, "--project_layers")
    if arguments.jackknife is not None and (arguments.jackknife < 0 or arguments.jackknife == 1):
        raise ConfigError(f"--jackknife={arguments.jackknife} was asked for: give 2 groups or more, or 0.")
    from regap_patch.measure.mir import MirSettings
    from regap_patch.measure.pairs import choose_pairs
    from regap_patch.measure.runs import mir_of_checkpoints

    options = loading_options(arguments)
    chosen = choose_pairs(
        arguments.images,
        arguments.texts,
        count=max(sizes),
        seed=arguments.seed,
        pairing=arguments.pairing,
        image_folder=arguments.image_folder,
    )
    settings = MirSettings(
        sizes=tuple(sizes),
        groups=arguments.jackknife,
        evaluation=arguments.evaluation,
        offload=options.device if arguments.offload else None,
        project_layers=tuple(layers),
        compat=tuple(dict.fromkeys(arguments.compat)),
    )
    output_path = arguments.output_path or Path("mir")
    with Bars() as bars:
        files = mir_of_checkpoints(
            arguments.models, chosen, output_path, options, settings, progress=bars, say=print
        )
    _print(files, arguments.layers)
    return 0


def _numbers(text: str, flag: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(
            f"{flag}={text!r} cannot be read: whole numbers are expected, with commas between."
        ) from None


def _sizes(text: str) -> list[int]:
    sizes = _numbers(text, "--pairs")
    if not sizes or min(sizes) < 2:
        raise ConfigError(f"--pairs={text!r} was asked for, but MIR takes at least 2 pairs: give a number.")
    return sizes


def _print(files: Sequence[Path], layers: bool) -> None:
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    first = next(iter(found.values()))
    rows = [_row(name, result, first) for name, result in found.items()]
    head = [
        "",
        "MIR",
        "bias-corrected",
        "95 % interval",
        "layer 0",
        "norm ratio 0",
        "minus the first, 95 % interval",
    ]
    print(table(head, rows))
    for name, result in found.items():
        for line in _notes(result):
            print(f"{name}: {line}")
        if len(result["curve"]) > 1:
            points = ", ".join(f"{_number(at['value'])} at {at['pairs']}" for at in result["curve"])
            print(f"{name}: MIR by pairs: {points}")
        if layers:
            print(f"\n{name}\n{_layer_table(result)}")
    for file in files:
        print(file)


def _row(name: str, result: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    value, zero = result["mir"], result["layer_zero"]
    interval = "-" if value["low"] is None else f"{value['low']:.4f} to {value['high']:.4f}"
    return [
        name,
        _number(value["value"]),
        "-" if value["corrected"] is None else _number(value["corrected"]),
        interval,
        f"{zero['frechet']:.4g}",
        f"{zero['norm_ratio']:.3g}",
        "" if result is first else _difference(first, result),
    ]


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    from regap_patch.measure.compare import difference_of

    try:
        found = difference_of(first, second, "the first", "this")
    except MeasureError:
        return "-"
    low, high = found.interval()
    return f"{found.value:+.4f}, {low:+.4f} to {high:+.4f}"


def _number(value: float | None) -> str:
    return "NaN" if value is None else f"{value:.4f}"


def _notes(result: Mapping[str, Any]) -> list[str]:
    notes = []
    width, pairs = result["layers"][0]["width"], result["data"]["pairs"]
    if pairs < width:
        notes.append(
            f"{pairs} pairs are fewer than the width {width}, so MIR is biased upward and its error bar is a "
            f"rough guide: compare only equal numbers of pairs"
        )
    if result["evaluation"]["mode"] == "streaming":
        notes.append(f"one streaming pass ({result['evaluation']['why']}): no error bar")
    for mode, script in result["compat"].items():
        notes.append(f"{mode}: {_script(script)}")
    if "ill_conditioned" in result["mir"]["flags"]:
        notes.append("ill-conditioned layers: digits beyond float32 were needed and not to be had")
    if result["mir"]["reason"]:
        notes.append(result["mir"]["reason"])
    return notes


def _script(found: Mapping[str, Any]) -> str:
    """The published script's number, and how far it is to be believed."""
    if found["value"] is None:
        return f"NaN. {found['reason']}"
    layers = found["ill_conditioned_layers"]
    return f"{found['value']:.4f}" + (f" (ill-conditioned in layers {layers})" if layers else "")


def _layer_table(result: Mapping[str, Any]) -> str:
    rows = [
        [
            str(layer["layer"]),
            *(
                f"{layer[key]:.4g}"
                for key in ("frechet", "mean_part", "trace_part", "image_norm", "text_norm")
            ),
            f"{layer['cosine']:.3f}",
            f"{layer['image_outliers']}, {layer['text_outliers']}",
        ]
        for layer in (result["layer_zero"], *result["layers"])
    ]
    head = ["layer", "Frechet", "means", "traces", "image norm", "text norm", "cosine", "outliers"]
    return table(head, rows)
