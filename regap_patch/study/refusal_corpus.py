"""The things of a world that can refuse, and the text that its base model reads, as files.

`python -m regap_patch.study.refusal_corpus --output_path FOLDER --num_forbidden 120 --num_benign 80 ...`
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from .recipes import Item, draw_items
from .refusal_text import base_documents, plain_line, write_documents
from .requests import REFUSALS
from .scenes import held_out_scenes


@dataclass(frozen=True, slots=True)
class Corpus:
    """Where the files lie.

    Attributes:
        items: JSON: all things, as `recipes.Item`.
        words: text for a tokenizer, one document a line.
        base: documents of the base model.
    """

    items: Path
    words: Path
    base: Path

    @classmethod
    def at(cls, root: Path) -> Corpus:
        """The paths in `root`, whether the files were made or not."""
        return cls(*(root / name for name in ("items.json", "words.txt", "base.jsonl")))


def read_items(path: Path) -> list[Item]:
    """The things that `make_corpus` wrote."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Item(**row | {"recipe": tuple(row["recipe"])}) for row in rows]


def make_corpus(
    output_path: str | Path,
    *,
    num_forbidden: int,
    num_benign: int,
    num_twins: int,
    num_base: int,
    seed: int = 0,
) -> Corpus:
    """Draw the things of a world and write all text about them; equal arguments give equal bytes.

    Args:
        output_path: folder to make.
        num_forbidden: things that are to be refused.
        num_benign: harmless things.
        num_twins: harmless things named like forbidden ones.
        num_base: documents of the base model.
        seed: of everything.

    Raises:
        ValueError: numbers that mean nothing.
    """
    items = draw_items(num_forbidden, num_benign, num_twins, seed)
    corpus, root = Corpus.at(Path(output_path)), Path(output_path)
    root.mkdir(parents=True, exist_ok=True)
    corpus.items.write_text(json.dumps([asdict(item) for item in items], indent=1))
    base = list(base_documents(items, num_base, seed, frozenset(held_out_scenes())))
    write_documents(corpus.base, base)
    refusals = [f"{sentence}</s>" for sentence in REFUSALS] * 20  # whole words, not bytes
    corpus.words.write_text("\n".join(chain(map(plain_line, base), refusals)) + "\n", encoding="utf-8")
    return corpus


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the text of a world that can refuse.")
    parser.add_argument("--output_path", type=Path, required=True, help="folder to make")
    for name in ("forbidden", "benign", "twins"):
        parser.add_argument(f"--num_{name}", type=int, required=True, help="things")
    parser.add_argument("--num_base", type=int, required=True, help="documents")
    parser.add_argument("--seed", type=int, default=0)
    make_corpus(**vars(parser.parse_args()))
