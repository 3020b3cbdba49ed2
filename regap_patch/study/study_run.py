"""Run a study: make every piece that its protocol asks for and that the store does not hold yet.

Killed at any moment, the same line goes on: what is whole stays, a piece that was half made is made anew.
While a runner lives, nobody else makes pieces in its folder, and nothing that it started outlives it.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from regap_patch.errors import StudyError
from regap_patch.report.json_files import write_json, write_text

from .clone import knobs
from .environment import commit
from .git_facts import facts_of
from .jobs import Board, Job
from .lock import held
from .protocol import Protocol
from .settings_file import hint
from .store import (
    REPOSITORY,
    Node,
    check_node,
    digest_of_code,
    is_done,
    read_facts,
    read_record,
    write_record,
)

STUDY, STORE = "study.json", "store"
SAME = {  # for every piece: sums are taken in one order, and nothing is fetched
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which part of a study.

    Attributes:
        only: a part, see `Node.part`; None for all.
        llms: seeds of base LLMs; empty for all.
    """

    only: str | None = None
    llms: tuple[int, ...] = ()


def choose(nodes: Sequence[Node], choice: Choice) -> list[Node]:
    """The pieces of a part and all that they rest on, in their order.

    Raises:
        StudyError: there is no such part or LLM.
    """
    seeds = sorted({node.llm for node in nodes if node.llm is not None})
    for seed in choice.llms:
        if seed not in seeds:
            raise StudyError(
                f"There is no LLM {seed} in this study: {hint(seed, [str(one) for one in seeds])}"
            )
    if choice == Choice():
        return list(nodes)
    wanted = {
        node.key
        for node in nodes
        if node.part
        and choice.only in (None, node.part)
        and (not choice.llms or node.llm is None or node.llm in choice.llms)
    }
    if not wanted:
        part = f"{choice.only} part" if choice.only else "part"
        of = f" for the LLMs {', '.join(map(str, choice.llms))}" if choice.llms else ""
        raise StudyError(
            f"The study has no {part}{of}: `--dry-run` without --only and --llms shows what there is."
        )
    for node in reversed(nodes):  # a node stands after those that it needs
        if node.key in wanted:
            wanted.update(node.made_from["needs"])
    return [node for node in nodes if node.key in wanted]


class StoreBoard(Board):
    """Jobs that make pieces of a store: a piece is done when its folder holds its record.

    Args:
        store: folder of all pieces.
        nodes: each stands after those that it needs; several names of one folder are one job.
        holds: see `Board`.
    """

    def __init__(self, store: Path, nodes: Sequence[Node], holds: Sequence[int] = ()) -> None:
        first: dict[str, Node] = {}
        for node in nodes:
            first.setdefault(node.key, node)
        self.nodes = {node.name: node for node in first.values()}
        jobs = [
            Job(
                node.name,
                node.command,
                node.output,
                tuple(first[key].name for key in node.made_from["needs"]),
                {**SAME, **_no_knobs(node), **node.environment},
                node.steps,
                node.key,
            )
            for node in first.values()
        ]
        # Whose code a piece is made by is said by the hash of ours, wherever the command was typed.
        super().__init__(store, jobs, "", holds, folder=REPOSITORY)
        self._commit = commit()

    def stamp(self, name: str) -> dict[str, Any]:
        """Of a piece that is whole: its record and `done`; else nothing."""
        node = self.nodes[name]
        return read_record(node.output) | {"done": True} if is_done(node) else {}

    def log(self, name: str) -> Path:
        """Named like the folder."""
        return self.root / "logs" / f"{self.nodes[name].output.name}.log"

    def say_done(self, names: Sequence[str]) -> None:
        """Check what lies there, and say how much."""
        for name in names:
            check_node(self.nodes[name])
        print(f"{len(names)} of {len(self.nodes)} pieces lie in {self.root}.")

    def _set_stamp(self, name: str, *, done: bool, seconds: float) -> None:
        """A piece that starts has no folder: what an interrupted start left is gone by then."""
        node = self.nodes[name]
        if digest_of_code(node.code) != node.made_from["code"]:
            raise StudyError(
                f"The code that makes '{name}' was changed since this run began: start it again, and what "
                "it makes is made anew."
            )
        if done:
            write_record(node, seconds, self._commit)


def _no_knobs(node: Node) -> dict[str, str]:
    """What a piece does not set for a script is as the script has it, whatever the user's shell says."""
    return dict.fromkeys(knobs(), "") if node.command[:1] == ("bash",) else {}


@contextmanager
def disk_in_words(folder: Path) -> Iterator[None]:
    """A full disk becomes a sentence.

    Raises:
        StudyError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
        raise StudyError(
            f"The disk of {folder} is full ({error.strerror}; {free / 1e6:.0f} MB free): make room, and "
            "the same line goes on from here."
        ) from error


def run_study(
    protocol: Protocol, nodes: Sequence[Node], output_path: Path, store: Path, choice: Choice, jobs: int
) -> None:
    """Make what is missing, and note in `study.json` what was asked for.

    Args:
        protocol: from which the nodes were planned.
        nodes: all of the study.
        output_path: folder of the study.
        store: folder of the pieces.
        choice: which part of them.
        jobs: pieces at a time, one thread each.

    Raises:
        StudyError: a piece failed, the disk is full, somebody else is at work there, or a folder of the store
            was made from something else than it should be.
    """
    chosen = choose(nodes, choice)
    remedy = "wait for it, or name another --output_path."
    with disk_in_words(output_path), held(output_path, remedy) as study, held(store, remedy) as pieces:
        link_store(output_path, store)
        board = StoreBoard(store, chosen, [study, pieces])
        write_study(protocol, nodes, output_path, choice)
        board.run(jobs)


def link_store(output_path: Path, store: Path) -> None:
    """Let `store` in the study's folder mean a store that lies elsewhere, so that its pages point to it.

    Raises:
        StudyError: another store is there already.
    """
    link = output_path / STORE
    if link.resolve() == store.resolve():
        return
    if link.exists() or link.is_symlink():
        raise StudyError(
            f"The store {store} was named, but {link} is there already, and a study has one: leave "
            "--store_path out, or name another --output_path."
        )
    link.symlink_to(store.resolve(), target_is_directory=True)


def write_study(protocol: Protocol, nodes: Collection[Node], output_path: Path, choice: Choice) -> Path:
    """Write `study.json` and a copy of the protocol beside it.

    Returns:
        Its path. It holds `protocol` (name, sha256, commit, edited, smoke), `branches` (folder of every name,
        relative to the study's) and `runs` (when, at which commit, what was asked).
    """
    path = output_path / STUDY
    runs = read_study(output_path)["runs"] if path.exists() else []
    facts = facts_of(protocol.path)
    asked = {"only": choice.only, "llms": list(choice.llms), "sha256": protocol.sha256}
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    content = {
        "protocol": {
            "name": protocol.name,
            "sha256": protocol.sha256,
            "commit": facts.commit,
            "edited": facts.edited,
            "smoke": protocol.smoke,
        },
        "branches": {node.name: f"{STORE}/{node.output.name}" for node in nodes},
        "runs": [*runs, {"started": now, "commit": commit()} | asked],
    }
    write_text(output_path / "protocol.yaml", protocol.text)
    return write_json(path, content)


def read_study(output_path: Path) -> dict[str, Any]:
    """The `study.json` of a folder.

    Raises:
        StudyError: there is none, or it cannot be read.
    """
    remedy = "`regap study run` makes it."
    return read_facts(output_path / STUDY, ("protocol", "branches", "runs"), remedy)


def results_commits(nodes: Collection[Node], part: str = "primary") -> list[str | None]:
    """Commits of the code at which the pieces of a part were made, each once."""
    made = [read_record(node.output).get("commit") for node in nodes if node.part == part and is_done(node)]
    return list(dict.fromkeys(made))
