"""`regap gap`: the gap at the language model's input, over image-caption pairs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from regap_patch.commands.measuring import Bars, add_loading, loading_options, table

SHOWN = ("centroid_l2", "pairwise_sq", "cosine", "norm_ratio", "image_trace", "text_trace")


def add_gap(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "gap",
        help="distance, spread, norms and cosine of image and text tokens at the language model's input",
        description="Gap statistics at the language model's input over image-caption pairs, of one "
        "checkpoint or several on the same pairs. Writes one JSON each; what is done and unchanged is "
        "not done again.",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="checkpoint: folder or hub name")
    parser.add_argument("data", type=Path, metavar="DATA", help="captions: a JSON in LLaVA's format")
    parser.add_argument("--image_folder", type=Path, help="what `image` in DATA is relative to (its folder)")
    parser.add_argument("--pairs", type=int, default=100, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which (%(default)s)")
    parser.add_argument(
        "--output_path", type=Path, default=Path("gap"), help="folder, or a .json file (%(default)s)"
    )
    add_loading(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from regap_patch.measure.pairs import CAPTIONS, choose_pairs
    from regap_patch.measure.runs import gap_of_checkpoints

    chosen = choose_pairs(
        arguments.image_folder or arguments.data.parent,
        arguments.data,
        count=arguments.pairs,
        seed=arguments.seed,
        pairing=CAPTIONS,
    )
    options = loading_options(arguments)
    with Bars() as bars:
        files = gap_of_checkpoints(
            arguments.models, chosen, arguments.output_path, options, progress=bars, say=print
        )
    rows = []
    for file in files:
        found = json.loads(file.read_text(encoding="utf-8"))
        cells = [f"{found['mean'][key]:.4g} ± {found['stderr'][key]:.2g}" for key in SHOWN]
        rows.append([file.stem, f"{found['corpus']['centroid_l2']:.4g}", *cells])
    print(table(["mean over pairs ± standard error", "corpus centroid_l2", *SHOWN], rows))
    for file in files:
        print(file)
    return 0
