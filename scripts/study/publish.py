"""A reported study as a few small files for a repository: the page, and the numbers that it cites.

    python scripts/study/publish.py playground/runs/study docs/study

`outcomes.csv` is packed, since it says of each number where in the store it came from; pandas reads it so.
`training.csv`, every logged step of every run, stays where it was made.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path

WHOLE = ("report.html", "means.csv", "provenance.json")
LIMIT = 2_000_000  # bytes in all


def publish(study: Path, folder: Path) -> dict[str, int]:
    """Copy what the page needs.

    Args:
        study: that `regap study report` has reported.
        folder: for the files; made where there is none.

    Returns:
        Bytes of each file.
    """
    content = {name: (study / name).read_bytes() for name in WHOLE}
    analysis = json.loads((study / "analysis.json").read_text(encoding="utf-8"))
    small = json.dumps(analysis, ensure_ascii=False, separators=(",", ":"))
    content["analysis.json"] = f"{small}\n".encode()
    # No time of packing, so that the same study is the same file.
    content["outcomes.csv.gz"] = gzip.compress((study / "outcomes.csv").read_bytes(), 9, mtime=0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, some in content.items():
        (folder / name).write_bytes(some)
    return {name: len(some) for name, some in content.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="folder that `regap study report` has written to")
    parser.add_argument("folder", type=Path, help="where the small copy goes")
    arguments = parser.parse_args()
    if not (arguments.study / "report.html").is_file():
        sys.exit(f"{arguments.study} has no report.html: run `regap study report` on it first.")
    sizes = publish(arguments.study, arguments.folder)
    for name, size in sizes.items():
        print(f"{size:>9,d}  {arguments.folder / name}")
    if (size := sum(sizes.values())) > LIMIT:
        sys.exit(f"Together {size:,d} bytes, more than the {LIMIT:,d} that a repository should bear.")


if __name__ == "__main__":
    main()
