"""The first page of the study: one small language model that can refuse, its arms off and regap, one page.

A protocol, the study's runner, its measures and its tables, for one language model; its own are the page,
and assertions of what comes out every time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from regap_patch.errors import StudyError

from .branches import branches
from .clone import check_clone
from .outcome_table import write_outcomes, write_training
from .protocol import MAIN, Protocol, read_protocol
from .protocol_sections import LanguageModels
from .provenance import write_provenance
from .quickstart_page import write_quickstart_page
from .quickstart_results import write_results
from .quickstart_table import SAYS, check_in_words, table
from .store import REPOSITORY, Node
from .study_run import STORE, Choice, run_study
from .tabulate import outcomes_of, training_of

PROTOCOLS = {
    "default": REPOSITORY / "scripts" / "study" / "quickstart.yaml",
    "smoke": REPOSITORY / "scripts" / "study" / "quickstart-smoke.yaml",
}
GAP = "gap.json"
ARMS = {"off": "off", "regap": "on"}  # as the scripts of scripts/mini call them


def run_quickstart(
    output_path: str | Path, *, size: str = "default", seed: int = 0, parallel: int | None = None
) -> Path:
    """Make everything that is not made yet, print what it showed, and write the page.

    Args:
        output_path: folder for all of it; a later run there reuses every piece that it would make the same.
        size: a key of `PROTOCOLS`.
        seed: of the language model, and of what is trained on top of it.
        parallel: pieces at a time, one thread each; None: two, if there are two cores.

    Returns:
        Path of the page.

    Raises:
        StudyError: something is not installed, a piece failed, or what was asserted does not hold; in that
            case everything is printed and written all the same.
    """
    check_clone()
    began, root = monotonic(), Path(output_path).resolve()
    protocol = _protocol(size, seed)
    nodes = branches(protocol, root / STORE)
    pieces = _pieces(nodes, root, seed)
    _check_places(pieces)
    run_study(
        protocol, nodes, root, root / STORE, Choice(llms=(seed,)), parallel or min(2, os.cpu_count() or 1)
    )
    _link(pieces)
    _link_gaps(nodes, root, seed)
    rows, training = outcomes_of(nodes), training_of(nodes)
    write_outcomes(root / "outcomes.csv", rows)
    write_training(root / "training.csv", training)
    write_provenance(protocol, nodes, root)
    results = write_results(protocol, nodes, rows, root)
    page = write_quickstart_page(root)
    print(f"\n{table(results)}\n\nseconds in all: {monotonic() - began:.0f}\n")
    print("\n".join(SAYS))
    print(f"\npage:        {output_path}/{page.name}")
    for arm in ARMS.values():
        print(f"checkpoint:  {output_path}/llava-finetune-{arm}")
    _assert(results)
    return page


def _protocol(size: str, seed: int) -> Protocol:
    """That of a size, for the language model of a seed."""
    if seed < 0:
        raise StudyError(f"A language model of seed {seed} was asked for: seeds are whole numbers from 0 on.")
    found = read_protocol(PROTOCOLS[size])
    return replace(found, llms=LanguageModels(pilot=(), confirmatory=(seed,)))


def _pieces(nodes: Sequence[Node], root: Path, seed: int) -> dict[Path, Path]:
    """Names by which scripts and pages know the pieces, and where each lies."""
    output = {node.name: node.output for node in nodes}
    llm = f"{MAIN}/llm-{seed}"
    names = {
        "llama": output[f"{llm}/aligned"],
        "tower": output[f"{MAIN}/tower"],
        "world": output[f"{MAIN}/pictures"],
        "benchmark": output[f"{llm}/benchmark"],
    }
    for arm, name in ARMS.items():
        names[f"llava-pretrain-{name}"] = output[f"{llm}/{arm}/stage1"]
        names[f"llava-finetune-{name}"] = output[f"{llm}/{arm}/stage2"]
    return {root / name: folder for name, folder in names.items()}


def _check_places(places: Iterable[Path]) -> None:
    for place in places:
        if place.exists() and not all(entry.is_symlink() for entry in place.iterdir()):
            raise StudyError(
                f"The quickstart was to leave links in {place}, but files of something else lie there: move "
                f"them away, or name another --output_path."
            )


def _link(pieces: Mapping[Path, Path]) -> None:
    """Let each name be a folder of links to the files of a piece.

    A link to the piece itself would do for reading, but tools that say what they measured would call it by
    its hash, and a training run into it would write to the store. They are relative: the whole can move.
    """
    for place, piece in pieces.items():
        if place.exists():
            shutil.rmtree(place)
        place.mkdir()
        for entry in piece.iterdir():
            (place / entry.name).symlink_to(os.path.relpath(entry, place))


def _link_gaps(nodes: Sequence[Node], root: Path, seed: int) -> None:
    """What was measured of a checkpoint lies beside its weights, where the demo looks for it."""
    output = {node.name: node.output for node in nodes}
    for arm, name in ARMS.items():
        for stage, place in enumerate((f"llava-pretrain-{name}", f"llava-finetune-{name}"), 1):
            measured = output[f"{MAIN}/llm-{seed}/{arm}/measures{stage}"]
            (root / place / GAP).symlink_to(os.path.relpath(measured / GAP, root / place))


def _assert(results: dict[str, Any]) -> None:
    failed = [check_in_words(check) for check in results["checks"] if not check["met"]]
    if failed:
        raise StudyError(
            f"What comes out every time did not come out here: {'; '.join(failed)}. Everything was written; "
            f"see the table above, and report it with {results['llm']} as the seed."
        )
