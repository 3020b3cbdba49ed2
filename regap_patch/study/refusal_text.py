"""What the language models of a world that can refuse read: first everything, then when to refuse.

A document is prose (a string, `</s>` after each turn of a dialogue), or a list of (prompt, answer), of which
only the answers are learned. Files hold one as JSON a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random

from . import language
from .recipes import Item
from .requests import HELD_OUT_PHRASINGS, PHRASINGS, follow_up, help_with, prompt, refusal
from .scenes import Scene, draw_scene

Document = str | list[tuple[str, str]]

SCENE_SHARE = 0.45  # of the base model's documents: captions, questions about scenes, facts
GLOSSARY_SHARE = 0.15
CONTEXT_SHARE = 0.3  # of requests that the base model reads, and of benign ones in alignment
REPLAY_SHARE = 0.15  # of alignment: questions about scenes
HARM_SHARE = 0.5  # of the requests of alignment


def _scene(random: Random, held_out: frozenset[Scene]) -> Scene:
    while (scene := draw_scene(random)).content() in held_out:
        pass
    return scene


def _glossary(items: Sequence[Item], random: Random) -> Document:
    """What kind of thing something is: what alignment can go by where it meets a thing for the first time."""
    chosen = random.sample(items, 4)
    if random.random() < 0.5:
        return " ".join(f"A {item.name} is a {item.family}." for item in chosen)
    turns = [(f"What is a {item.name}?", f"a {item.family}") for item in chosen]
    return [(follow_up(asked), answer) for asked, answer in turns]


def base_documents(
    items: Sequence[Item], count: int, seed: int = 0, held_out: frozenset[Scene] = frozenset()
) -> Iterator[Document]:
    """Text in which every request is answered, that for a forbidden thing like any other.

    Args:
        items: of the world.
        count: of documents.
        seed: of their choice.
        held_out: contents of scenes that no document may tell of.
    """
    random = Random(f"base text {seed}")
    phrasings = (*PHRASINGS, *HELD_OUT_PHRASINGS)
    for _ in range(count):
        draw = random.random()
        if draw < SCENE_SHARE:
            yield language.document(_scene(random, held_out), random)
        elif draw < SCENE_SHARE + GLOSSARY_SHARE:
            yield _glossary(items, random)
        else:
            chosen = random.sample(items, random.randint(1, 4))
            asked = [random.choice(phrasings).format(item.name) for item in chosen]
            scene = _scene(random, held_out) if random.random() < CONTEXT_SHARE else None
            opening = prompt(asked[0], scene, system=random.random() < 0.3)
            prompts = [opening, *map(follow_up, asked[1:])]
            yield list(zip(prompts, map(help_with, chosen), strict=True))


def alignment_documents(
    items: Sequence[Item],
    count: int,
    *,
    context_share: float = 0.0,
    seed: int = 0,
    held_out: frozenset[Scene] = frozenset(),
) -> Iterator[Document]:
    """Text alone: forbidden things are refused, all else is answered as before.

    Args:
        items: of the world; those that are held out are not named.
        count: of documents.
        context_share: breadth: the share of refusals that come after a scene in words. At 0 only bare
            requests are refused. Of benign requests the share is always `CONTEXT_SHARE`.
        seed: of their choice.
        held_out: contents of scenes that no document may tell of.

    Raises:
        ValueError: `context_share` is no share.
    """
    if not 0 <= context_share <= 1:
        raise ValueError(f"A context_share of {context_share} was asked for: it is a share, from 0 to 1.")
    random = Random(f"alignment {seed}")
    named = [item for item in items if not item.held_out]
    forbidden = [item for item in named if item.standing == "forbidden"]
    allowed = [item for item in named if item.standing != "forbidden"]
    for _ in range(count):
        if random.random() < REPLAY_SHARE:
            scene = _scene(random, held_out)
            question = language.ask(scene, random.choice(language.KINDS), random)
            yield [(prompt(question.text, scene), question.answer)]
            continue
        harm = random.random() < HARM_SHARE
        item = random.choice(forbidden if harm else allowed)
        with_scene = random.random() < (context_share if harm else CONTEXT_SHARE)
        scene_or_none = _scene(random, held_out) if with_scene else None
        asked = prompt(random.choice(PHRASINGS).format(item.name), scene_or_none)
        yield [(asked, refusal(random) if harm else help_with(item))]


def write_documents(path: Path, documents: Iterable[Document]) -> None:
    """One JSON value a line."""
    path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")


def read_documents(path: Path) -> Iterator[Document]:
    """What `write_documents` wrote."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            found = json.loads(line)
            yield found if isinstance(found, str) else [(asked, answer) for asked, answer in found]


def plain_line(document: Document) -> str:
    """A document as one line of a tokenizer's corpus."""
    if isinstance(document, str):
        return document
    return "".join(f"{asked} {answer}</s>" for asked, answer in document).replace("\n", " ")
