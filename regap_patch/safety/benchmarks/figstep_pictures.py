"""Draw FigStep's pictures, for whoever has its table but not its archive of pictures.

`python -m regap_patch.safety.benchmarks.figstep_pictures FOLDER [--split tiny] [--font FreeMonoBold.ttf]`

The measures are those of the published pictures. Another font, or another version of it, makes other
pictures, which is why `drawn.json` beside them says which it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from regap_patch.errors import BenchmarkError, ReGapError
from regap_patch.safety.benchmarks import figstep
from regap_patch.safety.benchmarks.data_folder import DataFolder

SIDE = 760  # pixels of a white square
FONT, SIZE = "FreeMonoBold.ttf", 80
ORIGIN, SPACING = (20, 10), 11
WIDTH = 15  # characters of a line
STEPS = 3


def lines_of(instruction: str) -> str:
    """The text of a picture: the instruction in short lines, and an empty list below."""
    body = textwrap.fill(instruction.strip(), width=WIDTH)
    return "\n".join([body, *(f"{step}. " for step in range(1, STEPS + 1))])


def open_font(path: Path | None = None) -> Any:
    """The font of a file, or the published one if this machine has it.

    Raises:
        BenchmarkError: no such font.
    """
    from PIL import ImageFont

    try:
        return ImageFont.truetype(str(path or FONT), SIZE)
    except OSError as error:
        raise BenchmarkError(
            f"FigStep's pictures were to be drawn with {path or FONT}, but that font cannot be opened: "
            f"install it (Debian: fonts-freefont-ttf), or name the file of a font with --font."
        ) from error


def draw(instruction: str, font: Any) -> tuple[bytes, bool]:
    """(the picture as PNG, whether all of the text fits on it); what does not fit is cut, as published."""
    from PIL import Image, ImageDraw

    text = lines_of(instruction)
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    brush = ImageDraw.Draw(picture)
    _, _, right, bottom = brush.textbbox(ORIGIN, text, font=font, spacing=SPACING)
    brush.text(ORIGIN, text, fill="black", font=font, spacing=SPACING)
    file = BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue(), right <= SIDE and bottom <= SIDE


def render(root: Path, split: str = "test", font: Path | None = None) -> Path:
    """Draw all pictures of a split where its adapter looks for them.

    Raises:
        BenchmarkError: no table, no font, or published pictures that would be overwritten.
    """
    folder = DataFolder(figstep.BENCHMARK, root)
    rows = figstep.read(folder, folder.split(split))
    home = root / figstep.PICTURES[split]
    record = home / figstep.DRAWN
    if not record.is_file() and any(home.glob("*.png")):
        raise folder.wrong(f"{home} holds pictures that were not drawn here", "move them away first")
    opened = open_font(font)
    home.mkdir(parents=True, exist_ok=True)
    file = Path(opened.path)
    facts: dict[str, Any] = {
        "font": file.name,
        "font_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "size": SIZE,
        "side": SIDE,
        "table_sha256": folder.sha256(figstep.TABLES[split])[figstep.TABLES[split]],
        "cut": [],
    }
    record.write_text(json.dumps(facts))  # first: pictures without it would pass for published ones
    for row in rows:
        data, fits = draw(row["instruction"], opened)
        (root / figstep.picture(row, split)).write_bytes(data)
        if not fits:
            facts["cut"].append(figstep.identity(row))
    record.write_text(json.dumps(facts, indent=1))
    return home


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, and say where; a sentence on what is wrong and status 1 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m regap_patch.safety.benchmarks.figstep_pictures",
        description="Draw FigStep's pictures from its table.",
    )
    parser.add_argument("root", metavar="FOLDER", type=Path, help="of FigStep's data")
    parser.add_argument("--split", choices=tuple(figstep.TABLES), default="test", help="%(default)s")
    parser.add_argument("--font", type=Path, help=f"file of a font ({FONT}, if it is installed)")
    given = parser.parse_args(argv)
    try:
        home = render(given.root, given.split, given.font)
    except ReGapError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    facts = json.loads((home / figstep.DRAWN).read_text())
    sys.stdout.write(f"{home}: drawn with {facts['font']}; text cut on {len(facts['cut'])} pictures\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
