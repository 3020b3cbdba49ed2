"""Which defence runs on which family of models: the table that the tests go through, and the guide's copy.

`python -m tests.contract.defense_table` writes the copy.
"""

from __future__ import annotations

import json
from pathlib import Path

from regap_patch.defenses.table import DEFENSES

TABLE = json.loads(Path(__file__).with_name("defense_hosts.json").read_text(encoding="utf-8"))
PAGE = Path(__file__).parents[2] / "docs" / "defenses.md"
BEGIN, END = "<!-- hosts: written by tests/contract/defense_table.py -->\n", "<!-- hosts end -->"


def cells() -> dict[tuple[str, str], str | None]:
    """(host, defence) -> None where it runs, else a part of the sentence that refuses it."""
    found = {}
    for host, row in TABLE.items():
        runs = row.get("defenses", [])
        for name in DEFENSES:
            found[host, name] = None if runs == "all" or name in runs else row["refused"]
    return found


def rendered() -> str:
    """As the guide shows it."""
    found = cells()
    head = ["", *(f"`{name}`" for name in DEFENSES)]
    rows = [
        [
            f"{row['about']} (`{host}`)",
            *("yes" if found[host, name] is None else "refused" for name in DEFENSES),
        ]
        for host, row in TABLE.items()
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


def on_the_page() -> str:
    """The copy that the guide has now."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + rendered() + END + rest.partition(END)[2], encoding="utf-8")
