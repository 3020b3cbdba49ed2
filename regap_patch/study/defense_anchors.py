"""What CMRM is fitted on in a study: requests of the benchmark that no evaluation asks.

`python -m regap_patch.study.defense_anchors --benchmark WORLD --output_path FOLDER`
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .refusal_benchmark import REQUESTS

ANCHORS = "anchors.jsonl"
SPLIT = "trained"


def write_anchors(benchmark: Path, output_path: Path) -> Path:
    """The requests of split `trained`, harmful and harmless: things and words that alignment knows.

    Split `test` asks about the same things among others, in words of its own, so that no anchor is asked.

    Args:
        benchmark: folder of the world that can refuse.
        output_path: folder to make, with the file for `regap defense fit cmrm --anchors`.

    Raises:
        ValueError: a request is asked by split `test` in the same words.
    """
    rows = [json.loads(line) for line in (benchmark / REQUESTS).read_text(encoding="utf-8").splitlines()]
    asked = {row["prompt"] for row in rows if row["split"] == "test"}
    chosen = [row for row in rows if row["split"] == SPLIT]
    if shared := [row["id"] for row in chosen if row["prompt"] in asked]:
        raise ValueError(f"{shared[0]} of split {SPLIT} is asked by split test too: no anchor may be.")
    anchors = [{"uid": f"world/{SPLIT}/{row['id']}", "text": row["prompt"]} for row in chosen]
    output_path.mkdir(parents=True, exist_ok=True)
    path = output_path / ANCHORS
    path.write_text("".join(json.dumps(anchor) + "\n" for anchor in anchors), encoding="utf-8")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write what a study fits CMRM on.")
    parser.add_argument("--benchmark", type=Path, required=True, help="folder of a world that can refuse")
    parser.add_argument("--output_path", type=Path, required=True, help="folder to make")
    write_anchors(**vars(parser.parse_args()))
