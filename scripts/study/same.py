"""Whether two runs of a study made the same: weights, logs, answers, verdicts and measures, piece by piece.

    regap study run scripts/study/protocol-v1.yaml --output_path /tmp/again --only primary --llms 1 --jobs 2
    python scripts/study/same.py playground/runs/study /tmp/again

Weights are compared byte for byte; answers, verdicts, logs and measures value for value, without times, paths
and the hashes of files that hold a path. Pieces that only one of them has are not counted. Ends with status 1
if anything differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BYTES = ("*.safetensors", "mm_projector.bin")
VALUES = (
    *("alignment.json", "trainer_state.json", "gap.json", "mir.json", "captions.json"),
    *("run/answers/**/*.jsonl", "run/verdicts/**/*.jsonl"),
)
# Where and how fast it was made; keys and fingerprints are hashes over config.json, which names folders.
ELSEWHERE = {"path", "base", "source", "seconds", "memory", "key", "answer_key", "fingerprint"}


def pieces(study: Path) -> dict[str, Path]:
    """Folder of each finished piece by its name in the study; one that several names share is there once."""
    branches = json.loads((study / "study.json").read_text(encoding="utf-8"))["branches"]
    once = {study / place: name for name, place in reversed(branches.items())}
    return {name: place for place, name in once.items() if (place / "node.json").is_file()}


def compared(first: Path, second: Path) -> Iterator[tuple[str, str, bool]]:
    """(kind of file, its name, whether both are the same) of one piece in two places."""
    for pattern in (*BYTES, *VALUES):
        for path in sorted(first.glob(pattern)):
            name = path.relative_to(first)
            look = Path.read_bytes if pattern in BYTES else read
            yield pattern, str(name), (second / name).is_file() and look(path) == look(second / name)


def read(path: Path) -> Any:
    """A file's values, without paths and times."""
    text = path.read_text(encoding="utf-8")
    return bare(
        [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    )


def bare(value: Any) -> Any:
    """Without what differs between two places and two afternoons."""
    if isinstance(value, list):
        return [bare(one) for one in value]
    if isinstance(value, dict):
        kept = (
            name for name in value if name not in ELSEWHERE and not name.endswith(("_runtime", "_per_second"))
        )
        return {name: bare(value[name]) for name in kept}
    return value


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="folder of `regap study run`")
    parser.add_argument("again", type=Path, help="another, of the same protocol")
    arguments = parser.parse_args()
    first, second = pieces(arguments.study), pieces(arguments.again)
    both = [name for name in first if name in second]
    same: Counter[str] = Counter()
    different = []
    for name in both:
        for kind, file, equal in compared(first[name], second[name]):
            same[kind] += equal
            different += [] if equal else [f"{name}: {file}"]
    print(f"{len(both)} pieces in both")
    for kind, count in same.items():
        print(f"{count:>6} the same  {kind}")
    for line in different:
        print(f"differs  {line}")
    if different or not same:
        sys.exit(
            f"{len(different)} files differ."
            if both
            else "No piece is in both: name two runs of one protocol."
        )


if __name__ == "__main__":
    main()
