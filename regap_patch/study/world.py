"""The picture world on disk: PNG files, LLaVA-format JSON, held-out questions and text, all from one seed.

`python -m regap_patch.study.world --output_path FOLDER --num_pretrain 99 --num_finetune 99 --num_questions 7`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from . import language
from .scenes import Scene, draw_scene, held_out_scenes, paint

TEXT_ONLY_SHARE = 0.15
MANIFEST = "world.json"


@dataclass(frozen=True, slots=True)
class World:
    """Where the files of a world lie.

    Attributes:
        root: the folder of it all.
        images: folder of PNG files; the `image` fields of the JSON files are relative to it.
        pretrain_json: LLaVA stage 1: one image and one caption a sample.
        finetune_json: LLaVA stage 2: conversations of one to four turns, some without an image.
        questions: JSON lines `question_id, image, text, answer, kind`, on scenes that no other part shows.
        corpus: text for a tokenizer and a language model, one document a line.
    """

    root: Path
    images: Path
    pretrain_json: Path
    finetune_json: Path
    questions: Path
    corpus: Path

    @classmethod
    def at(cls, root: Path) -> World:
        """The paths of a world in `root`, whether it was made or not."""
        names = ("images", "pretrain.json", "finetune.json", "questions.jsonl", "corpus.txt")
        return cls(root, *(root / name for name in names))

    @classmethod
    def open(cls, root: str | Path) -> World:
        """A world that `make_world` completed.

        Raises:
            FileNotFoundError: `root` holds no complete world.
        """
        if not (Path(root) / MANIFEST).is_file():
            raise FileNotFoundError(
                f"A picture world was asked for in {root}, but {MANIFEST}, which is written last, is not "
                "there: make it with regap_patch.study.make_world."
            )
        return cls.at(Path(root))


def _scenes(random: Random, held_out: set[Scene]) -> Iterator[Scene]:
    """Scenes without end whose content is not among the held-out ones."""
    while True:
        scene = draw_scene(random)
        if scene.content() not in held_out:
            yield scene


def _save_image(scene: Scene, path: Path, image_size: int) -> None:
    from PIL import Image

    Image.fromarray(paint(scene, image_size)).save(path)


def _turns(prompts: list[str], answers: list[str]) -> list[dict[str, str]]:
    turns = []
    for prompt, answer in zip(prompts, answers, strict=True):
        turns += [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]
    return turns


def _pretrain_sample(identity: str, scene: Scene, random: Random) -> dict[str, Any]:
    turns = _turns(["<image>"], [language.caption(scene, random)])
    return {"id": identity, "image": f"{identity}.png", "conversations": turns}


def _finetune_sample(identity: str, scene: Scene, random: Random) -> dict[str, Any]:
    """Every seventh or so has no image: facts, or questions about a scene that is told in words."""
    text_only = random.random() < TEXT_ONLY_SHARE
    if text_only and random.random() < 0.5:
        questions = [language.fact(random) for _ in range(random.randint(1, 2))]
        opening = ""
    else:
        questions = language.ask_several(scene, random.randint(1, 4), random)
        opening = f"{language.describe(scene)} " if text_only else "<image>\n"
    prompts = [question.text for question in questions]
    prompts[0] = opening + prompts[0]
    turns = _turns(prompts, [question.answer for question in questions])
    image = {} if text_only else {"image": f"{identity}.png"}
    return {"id": identity, **image, "conversations": turns}


def _question(identity: str, scene: Scene, random: Random) -> dict[str, Any]:
    index = int(identity.rpartition("-")[2])
    kind = language.KINDS[index % len(language.KINDS)]  # the same number of each kind
    question = language.ask(scene, kind, random)
    image = {"question_id": index, "image": f"{identity}.png"}
    return {**image, "text": question.text, "answer": question.answer, "kind": kind}


def _samples(
    part: str, count: int, seed: int, held_out: set[Scene]
) -> Iterator[tuple[Scene, dict[str, Any]]]:
    """`count` scenes and what is asked or said about each; each part has a random stream of its own."""
    make = {"question": _question, "pretrain": _pretrain_sample, "finetune": _finetune_sample}[part]
    random = Random(f"{part} {seed}")
    scenes = _scenes(random, held_out)
    for index in range(count):
        scene = next(scenes)
        yield scene, make(f"{part}-{index:06d}", scene, random)


def _corpus(lines: int, seed: int, held_out: set[Scene]) -> list[str]:
    random = Random(f"corpus {seed}")
    scenes = _scenes(random, held_out)
    return [language.document(next(scenes), random) for _ in range(lines)]


def make_world(
    output_path: str | Path,
    *,
    num_pretrain: int,
    num_finetune: int,
    num_questions: int,
    seed: int = 0,
    image_size: int = 56,
    hold_out_evaluation: bool = False,
) -> World:
    """Make a picture world in the folder `output_path`; equal arguments give equal pixels and equal text.

    Args:
        output_path: folder to make; files of an earlier world there are written over.
        num_pretrain: samples of stage 1, one image each.
        num_finetune: samples of stage 2; about one in seven has no image.
        num_questions: held-out questions, one image each, equally many of each kind.
        seed: of everything.
        image_size: side of the pictures, in pixels.
        hold_out_evaluation: nothing shows or tells the scenes that the benchmark of a world that can refuse
            shows (`scenes.held_out_scenes`).

    Raises:
        ValueError: a count is negative, or the pictures are too small to tell shapes apart (< 16 pixels).
    """
    if min(num_pretrain, num_finetune, num_questions) < 0 or image_size < 16:
        raise ValueError(
            f"Counts of {num_pretrain}, {num_finetune} and {num_questions} and a side of {image_size} pixels "
            "were asked for: counts must be >= 0 and the side >= 16."
        )
    world = World.at(Path(output_path))
    world.images.mkdir(parents=True, exist_ok=True)
    (world.root / MANIFEST).unlink(missing_ok=True)
    counts = {"question": num_questions, "pretrain": num_pretrain, "finetune": num_finetune}
    samples: dict[str, list[dict[str, Any]]] = {}
    held_out: set[Scene] = set(held_out_scenes()) if hold_out_evaluation else set()
    for part, count in counts.items():  # the questions first: the other parts avoid their scenes
        drawn = list(_samples(part, count, seed, held_out))
        samples[part] = [sample for _, sample in drawn]
        if part == "question":
            held_out |= {scene.content() for scene, _ in drawn}
        for scene, sample in drawn:
            if "image" in sample:
                _save_image(scene, world.images / sample["image"], image_size)
    # A tokenizer wants some text even of the smallest world.
    documents = _corpus(1000 + 2 * (num_pretrain + num_finetune), seed, held_out)
    world.pretrain_json.write_text(json.dumps(samples["pretrain"], indent=1))
    world.finetune_json.write_text(json.dumps(samples["finetune"], indent=1))
    world.questions.write_text("".join(json.dumps(sample) + "\n" for sample in samples["question"]))
    world.corpus.write_text("\n".join(documents) + "\n")
    counts |= {"seed": seed, "image_size": image_size, "documents": len(documents)}
    (world.root / MANIFEST).write_text(json.dumps(counts, indent=1))
    return world


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a picture world.")
    parser.add_argument("--output_path", type=Path, required=True, help="folder to make")
    parser.add_argument("--num_pretrain", type=int, required=True, help="images with a caption")
    parser.add_argument("--num_finetune", type=int, required=True, help="conversations")
    parser.add_argument("--num_questions", type=int, required=True, help="held-out questions")
    parser.add_argument("--image_size", type=int, default=56, help="pixels a side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--hold_out_evaluation", action="store_true", help="keep clear of evaluation's scenes"
    )
    make_world(**vars(parser.parse_args()))
