"""`provenance.json`: under which protocol, by which code and versions, in how much time a study was made."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from regap_patch.report.json_files import write_json

from .arms import read_arms
from .environment import commit, versions
from .git_facts import facts_of
from .protocol import Protocol, may_report_primary
from .store import Node, is_done, read_record
from .study_run import read_study, results_commits

PROVENANCE = "provenance.json"


def write_provenance(protocol: Protocol, nodes: Collection[Node], folder: str | Path) -> Path:
    """Say where the results of a study come from.

    Args:
        protocol: as its file is now.
        nodes: all pieces of its study.
        folder: of the study; `study.json` there says under which text of the protocol it was made.

    Returns:
        Path of the file: `protocol` (its settings, sha256, commit, edited), `primary` (allowed, why), `arms`
        (each in a line), `pieces` (number and seconds by kind), `seconds`, `versions`, `commits` (of the code
        that made what the result rests on), `machine`, and `reported` (commit of the code that wrote this).

    Raises:
        StudyError: there is no study in the folder, or a record of a piece cannot be read.
        ReportError: the disk does not take it.
    """
    folder = Path(folder)
    commits = results_commits(nodes, protocol.part)
    made_under = read_study(folder)["protocol"]["sha256"]
    allowed, why = may_report_primary(protocol, made_under=made_under, commits=commits)
    facts = facts_of(protocol.path)
    arms = read_arms((*protocol.arms.primary, *protocol.arms.exploratory))
    settings = {name: value for name, value in asdict(protocol).items() if name not in ("path", "text")}
    pieces = _pieces(nodes)
    content = {
        "protocol": {
            **json.loads(json.dumps(settings)),
            "sha256": protocol.sha256,
            "commit": facts.commit,
            "edited": facts.edited or made_under != protocol.sha256,
        },
        "primary": {"allowed": allowed, "why": why},
        "arms": {name: arm.about for name, arm in arms.items()},
        "pieces": pieces,
        "seconds": sum(kind["seconds"] for kind in pieces.values()),
        "versions": {name: found for name, found in versions().items() if found is not None},
        "commits": commits,
        "machine": f"{platform.system()} {platform.machine()}",
        "reported": commit(),
    }
    return write_json(folder / PROVENANCE, content)


def _pieces(nodes: Collection[Node]) -> dict[str, dict[str, Any]]:
    """Number and seconds of the finished pieces of each kind; one that two branches share counts once."""
    found: dict[str, dict[str, Any]] = {}
    for node in {node.key: node for node in nodes}.values():
        if is_done(node):
            kind = found.setdefault(node.kind, {"pieces": 0, "seconds": 0.0})
            kind["pieces"] += 1
            kind["seconds"] += float(read_record(node.output).get("seconds", 0.0))
    return found
