"""The requests of a world that can refuse as a benchmark, with held-out scenes as pictures.

`python -m regap_patch.study.refusal_benchmark --items items.json --output_path FOLDER/world`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from . import language
from .recipes import NEEDED, Item
from .refusal_corpus import read_items
from .requests import HELD_OUT_PHRASINGS, PHRASINGS, help_with
from .scenes import Scene, held_out_scenes, paint

REQUESTS = "requests.jsonl"
MANIFEST = "benchmark.json"


def _scenario(item: Item) -> str:
    kind = {"forbidden": "forbidden", "benign": "benign", "twin": "near-twin"}[item.standing]
    return f"{kind}, {'held-out' if item.held_out else 'trained'} item"


def _requests(items: Sequence[Item], phrasings: int, split: str, random: Random) -> Iterator[dict[str, Any]]:
    """Each item in some phrasings; without a picture yet."""
    forms = HELD_OUT_PHRASINGS if split == "test" else PHRASINGS
    for number, item in enumerate(items):
        for form in random.sample(forms, phrasings):
            request = form.format(item.name)
            yield {
                "id": f"{item.standing}-{number:03d}-{forms.index(form):02d}",
                "split": split,
                "scenario": _scenario(item),
                "cluster": f"{item.standing}-{number:03d}",
                "kind": "harm" if item.standing == "forbidden" else "benign",
                "prompt": request,
                "recipe": list(item.recipe),
                "needed": NEEDED,
                "answers": [help_with(item)],
            }


def _questions(scenes: Sequence[Scene], count: int, random: Random) -> Iterator[dict[str, Any]]:
    """As many of each kind, one a scene."""
    for index in range(count):
        kind = language.KINDS[index % len(language.KINDS)]
        question = language.ask(scenes[index % len(scenes)], kind, random)
        yield {
            "id": f"vqa-{index:04d}",
            "split": "test",
            "scenario": f"vqa, {kind}",
            "cluster": f"scene-{index % len(scenes):03d}",
            "kind": "utility",
            "prompt": question.text,
            "answers": [question.answer],
        }


def make_benchmark(
    output_path: str | Path,
    items: Sequence[Item],
    *,
    phrasings: int = 3,
    questions: int = 210,
    seed: int = 0,
    image_size: int = 56,
) -> Path:
    """Write requests, questions and pictures for `regap eval run --tasks world=FOLDER`.

    Split `test` asks about every item in phrasings that alignment does not know, and about pictures; split
    `trained` asks about the items that alignment knows in phrasings that it knows.

    Args:
        output_path: folder to make: `requests.jsonl`, `images/` and, last, `benchmark.json`.
        items: of the world.
        phrasings: of each item, in either split; at most 6.
        questions: about pictures.
        seed: of phrasings, questions and the choice of pictures.
        image_size: side of the pictures, in pixels.

    Raises:
        ValueError: more phrasings than there are.
    """
    if not 1 <= phrasings <= len(HELD_OUT_PHRASINGS):
        raise ValueError(f"{phrasings} phrasings were asked for: take 1 to {len(HELD_OUT_PHRASINGS)}.")
    from PIL import Image

    root, random, scenes = Path(output_path), Random(f"benchmark {seed}"), held_out_scenes()
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / MANIFEST).unlink(missing_ok=True)
    for index, scene in enumerate(scenes):
        Image.fromarray(paint(scene, image_size)).save(root / "images" / f"scene-{index:03d}.png")
    rows = list(_questions(scenes, questions, random))
    for index, row in enumerate(rows):
        row["scene"] = index % len(scenes)
    trained = [item for item in items if not item.held_out]
    for split, asked in (("test", items), ("trained", trained)):
        requests = _requests(asked, phrasings, split, random)
        rows += [row | {"scene": random.randrange(len(scenes))} for row in requests]
    for row in rows:
        scene = row.pop("scene")
        row |= {"image": f"images/scene-{scene:03d}.png", "words": language.describe(scenes[scene])}
    (root / REQUESTS).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    splits = {split: sum(row["split"] == split for row in rows) for split in ("test", "trained")}
    facts = {"splits": splits, "images": len(scenes), "seed": seed}
    (root / MANIFEST).write_text(json.dumps(facts, indent=1))
    return root


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the benchmark of a world that can refuse.")
    parser.add_argument("--items", type=Path, required=True, help="JSON file of the things of the world")
    parser.add_argument("--output_path", type=Path, required=True, help="folder to make, named world")
    parser.add_argument("--phrasings", type=int, default=3, help="of each item")
    parser.add_argument("--questions", type=int, default=210, help="about pictures")
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args())
    make_benchmark(items=read_items(given.pop("items")), **given)
