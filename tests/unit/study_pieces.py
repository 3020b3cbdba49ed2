"""A study of nothing: pieces that commands of a line each make, of the shape that real ones have."""

from __future__ import annotations

import sys
from pathlib import Path

from regap_patch.study.store import Node, plan_node

CODE = ("regap_patch/version.py",)
# Appends to a file at a time, half of it first, so that what an earlier start left would show.
MAKE = """
import pathlib, sys, time
folder, text, steps, pause = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
for source in sys.argv[5:]:
    text += pathlib.Path(source, "file-0").read_text()
folder.mkdir(exist_ok=True)
for step in range(steps):
    with open(folder / f"file-{step}", "a") as file:
        file.write(text)
        file.flush()
        time.sleep(pause)
        file.write(" whole")
    print(f"{step + 1}/{steps} [", flush=True)
"""


def made(
    store: Path,
    name: str,
    kind: str,
    recipe: dict[str, object],
    *needs: Node,
    pause: float = 0.0,
    **fields: object,
) -> Node:
    """A piece of three files that hold its recipe and the first file of each of its needs."""
    node = plan_node(store, name, kind, recipe, code=CODE, needs=needs, **fields)
    sources = [need.output for need in needs]
    return node.by([sys.executable, "-c", MAKE, node.output, str(recipe), 3, pause, *sources], steps=3)


def study_of(store: Path, *, seeds: tuple[int, ...] = (1, 2, 9), pause: float = 0.0) -> list[Node]:
    """A tower, and for every seed a base LLM with two arms; 9 is the pilot's, and 1 has one arm more."""
    tower = made(store, "main/tower", "tower", {"seed": 0}, pause=pause)
    nodes = [tower]
    for seed in seeds:
        root = f"main/llm-{seed}"
        base = made(store, f"{root}/base", "base", {"seed": seed}, pause=pause, llm=seed)
        nodes.append(base)
        for arm in ("off", "regap", *(["norm_match"] if seed == 1 else [])):
            part = "pilot" if seed == 9 else "exploratory" if arm == "norm_match" else "primary"
            stage = made(
                store, f"{root}/{arm}/stage1", "stage1", {"arm": arm}, base, tower, pause=pause, llm=seed
            )
            asked = made(
                store, f"{root}/{arm}/measures", "measures", {}, stage, pause=pause, part=part, llm=seed
            )
            nodes += [stage, asked]
    return nodes


def contents(store: Path) -> dict[str, bytes]:
    """Every file of every piece, without the records, which hold seconds."""
    found = {}
    for path in sorted(store.rglob("*")):
        inner = path.relative_to(store)
        if path.is_file() and inner.parts[0] not in {"logs", "lock"} and path.name != "node.json":
            found[inner.as_posix()] = path.read_bytes()
    return found
