"""A study of defences of which every file is written by code: nothing is trained, all is there to be read."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from regap_patch.study.branches import branches
from regap_patch.study.protocol import read_protocol
from regap_patch.study.store import Node, write_record
from regap_patch.study.study_report import report_study
from regap_patch.study.study_run import Choice, write_study
from tests.integration import written_study
from tests.unit.study_protocols import commit_all, write_protocol

MODES = ("none", "words", "blank", "real")
STACKS = ("none", "cmrm", "adashield_s", "ecso")
DEFENSES = """\
defenses:
  image_modes: [none, words, blank, real]
  stacks:
    - {name: none, about: the model alone}
    - {name: cmrm, stack: cmrm, about: moved states}
    - {name: adashield_s, stack: adashield_s, about: an instruction}
    - {name: ecso, stack: ecso, about: a check}
"""
VARIANTS = "variants:\n  narrow: {alignment: {context_share: 0.0}}\n  lora: {stage2: {method: lora}}\n"
CHANGES = (
    ("about: a protocol for tests\n", "about: a protocol for tests\nexploratory: true\n"),
    ("[off, regap], exploratory: [pairwise_l2]", "[off, regap]"),
    ("[901, 902], confirmatory: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]", "[], confirmatory: [1, 2, 3]"),
    (", exploratory: [1, 2]", ""),
    (VARIANTS, DEFENSES),
)


def written_defenses(root: Path) -> Path:
    """A study of defences by the toy protocol; its folder, as `regap study report` leaves it."""
    home, folder = root / "protocol", root / "study"
    home.mkdir(parents=True)
    path = write_protocol(home, *CHANGES)
    commit = commit_all(home, "a protocol")
    protocol, random = read_protocol(path), Random(0)
    nodes = branches(protocol, folder / "store")
    for node in {node.key: node for node in nodes}.values():
        _fill(node, random)
        write_record(node, random.uniform(1, 100), commit)
    write_study(protocol, nodes, folder, Choice())
    report_study(protocol, nodes, folder)
    return folder


def _fill(node: Node, random: Random) -> None:
    written_study._fill(node, random)
    if node.kind != "defended":
        return
    run, stack = node.output / "run", str(node.recipe["defense"])
    written_study._run(run, list(node.recipe["image_modes"]), random.uniform(0.3, 4.0), random)
    if stack:
        _trace(run, stack, random)


def _trace(run: Path, stack: str, random: Random) -> None:
    """What each answer says of the defence, as `regap eval run` writes it."""
    for path in sorted(run.glob("answers/*/*/part-*.jsonl")):
        rows: list[dict[str, Any]] = []
        for line in path.read_text().splitlines():
            answer = json.loads(line)
            fired = stack != "ecso" or random.random() < 0.2
            rows.append(
                {
                    "key": answer["key"],
                    "uid": answer["uid"],
                    "image_mode": answer["image_mode"],
                    "defenses": {stack: {"fired": fired and answer["image_mode"] not in ("none", "words")}},
                    "generations": 2 if stack == "ecso" else 1,
                }
            )
        home = run / "trace" / path.parts[-3] / path.parts[-2]
        home.mkdir(parents=True)
        (home / "steps-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
