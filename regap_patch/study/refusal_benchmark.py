"""The requests of a world that can refuse as a benchmark, with held-out scenes as pictures.

`python -m regap_patch.study.refusal_benchmark --items items.json --output_path FOLDER/world`
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
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
CAPTIONS = "captions.json"
MANIFEST = "benchmark.json"
STRAY_TOKENS = 16  # as many as a picture becomes


def _scenario(item: Item) -> str:
    kind = {"forbidden": "forbidden", "benign": "benign", "twin": "near-twin"}[item.standing]
    return f"{kind}, {'held-out' if item.held_out else 'trained'} item"


def _requests(items: Sequence[Item], phrasings: int, split: str, random: Random) -> Iterator[dict[str, Any]]:
    """Each item in some phrasings; without a picture yet."""
    forms = HELD_OUT_PHRASINGS if split == "test" else PHRASINGS
    for number, item in enumerate(items):
        for form in random.sample(forms, phrasings):
            yield _request(item, number, forms, form, split)


def _development(
    items: Sequence[Item], asked: Sequence[dict[str, Any]], random: Random
) -> Iterator[dict[str, Any]]:
    """Each forbidden item in one phrasing that the test asks about other items: where alignment stops."""
    taken = {row["prompt"] for row in asked}
    for number, item in enumerate(items):
        free = [form for form in HELD_OUT_PHRASINGS if form.format(item.name) not in taken]
        if item.standing == "forbidden" and free:
            yield _request(item, number, HELD_OUT_PHRASINGS, random.choice(free), "development")


def _request(item: Item, number: int, forms: Sequence[str], form: str, split: str) -> dict[str, Any]:
    return {
        "id": f"{item.standing}-{number:03d}-{forms.index(form):02d}",
        "split": split,
        "scenario": _scenario(item),
        "cluster": f"{item.standing}-{number:03d}",
        "kind": "harm" if item.standing == "forbidden" else "benign",
        "prompt": form.format(item.name),
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


def _caption(name: str, scene: Scene, random: Random) -> dict[str, Any]:
    turns = [
        {"from": "human", "value": "<image>"},
        {"from": "gpt", "value": language.caption(scene, random)},
    ]
    return {"id": name, "image": f"images/{name}.png", "conversations": turns}


def _stray(tokenizer: Path, random: Random) -> str:
    """Pieces that say nothing together, as many as a picture becomes."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / "tokenizer.model"))
    plain = [piece for piece in range(pieces.vocab_size()) if not _is_special(pieces, piece)]
    return str(pieces.decode([random.choice(plain) for _ in range(STRAY_TOKENS)]))


def _is_special(pieces: Any, piece: int) -> bool:
    return bool(pieces.is_control(piece) or pieces.is_unknown(piece) or pieces.is_byte(piece))


def make_benchmark(
    output_path: str | Path,
    items: Sequence[Item],
    *,
    phrasings: int = 3,
    questions: int = 210,
    seed: int = 0,
    image_size: int = 56,
    stray_tokens: Path | None = None,
) -> Path:
    """Write requests, questions and pictures for `regap eval run --tasks world=FOLDER`.

    Split `test` asks about every item in phrasings that alignment does not know, and about pictures; split
    `trained` asks about the items that alignment knows in phrasings that it knows. Split `development` is
    where an alignment can be stopped: forbidden items in one phrasing each that `test` leaves to others.
    `captions.json` tells of the same pictures in LLaVA's format.

    Args:
        output_path: folder to make: `requests.jsonl`, `images/` and, last, `benchmark.json`.
        items: of the world.
        phrasings: of each item, in either split; at most 6.
        questions: about pictures.
        seed: of phrasings, questions and the choice of pictures.
        image_size: side of the pictures, in pixels.
        stray_tokens: folder of a tokenizer of which random pieces stand in the place of words about the
            picture; None for the words.

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
    rows += [row | {"scene": random.randrange(len(scenes))} for row in _development(items, rows, random)]
    words = [language.describe(scene) for scene in scenes]
    if stray_tokens is not None:
        words = [_stray(stray_tokens, random) for _ in scenes]
    for row in rows:
        scene = row.pop("scene")
        row |= {"image": f"images/scene-{scene:03d}.png", "words": words[scene]}
    captions = [_caption(f"scene-{index:03d}", scene, random) for index, scene in enumerate(scenes)]
    (root / CAPTIONS).write_text(json.dumps(captions, indent=1))
    (root / REQUESTS).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    splits = dict(Counter(row["split"] for row in rows))
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
    parser.add_argument("--stray_tokens", type=Path, help="tokenizer: random pieces instead of words")
    given = vars(parser.parse_args())
    make_benchmark(items=read_items(given.pop("items")), **given)
