"""What can be said about a scene: captions, questions with their answers, and text for the language model."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from .scenes import COLOURS, Scene, Thing

NUMBERS = ("no", "one", "two", "three", "four")
KINDS = ("colour", "shape", "place", "size", "count", "exists", "background")
# What LLaVA v1.5 puts before a conversation: the language model must have read it before it meets pictures.
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
FACTS = (
    ("How many sides has a triangle?", "three"),
    ("How many sides has a square?", "four"),
    ("Which shape has no corner and a hole?", "ring"),
    ("Which shape has no corner and no hole?", "circle"),
    ("Which shape is a square on its corner?", "diamond"),
    ("Which shape looks like a plus sign?", "cross"),
    ("What is the opposite of large?", "small"),
    ("What is the opposite of small?", "large"),
    ("What is the opposite of black?", "white"),
    ("Which colour do red and yellow make?", "orange"),
    ("Which colour do red and blue make?", "purple"),
    ("Which colour do blue and yellow make?", "green"),
)


class Question(NamedTuple):
    """A question, its one right answer, and the kind of question that it is."""

    text: str
    answer: str
    kind: str


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _noun(thing: Thing, *, size: bool, place: bool) -> str:
    words = [thing.size] if size else []
    words += [thing.colour, thing.shape]
    return " ".join([_article(words[0]), *words]) + (f" in the {thing.place}" if place else "")


def describe(scene: Scene) -> str:
    """Everything there is to say, in one fixed form."""
    things = _join([_noun(thing, size=True, place=True) for thing in scene.things])
    return f"There {'is' if len(scene.things) == 1 else 'are'} {things} on a {scene.background} background."


def caption(scene: Scene, random: Random) -> str:
    """A caption that says more or less of the scene: from a few words to some forty."""
    size, place, background = (random.random() < share for share in (0.6, 0.8, 0.6))
    things = _join([_noun(thing, size=size, place=place) for thing in scene.things])
    ground = f" on a {scene.background} background" if background else ""
    verb = "is" if len(scene.things) == 1 else "are"
    count = NUMBERS[len(scene.things)]
    plural = "shape" if len(scene.things) == 1 else "shapes"
    forms = (
        f"{things}{ground}.",
        f"There {verb} {things}{ground}.",
        f"A picture of {things}{ground}.",
        f"The picture has {count} {plural}{ground}: {things}.",
    )
    text = random.choice(forms)
    return text[0].upper() + text[1:]


def _exists(scene: Scene, random: Random) -> Question:
    """Yes and no equally often; a "no" is near a "yes": a shape of the picture in another colour."""
    thing = random.choice(scene.things)
    if random.random() < 0.5:
        return Question(f"Is there {_noun(thing, size=False, place=False)}?", "yes", "exists")
    colour = random.choice([name for name in COLOURS if name != thing.colour])
    return Question(f"Is there {_article(colour)} {colour} {thing.shape}?", "no", "exists")


def ask(scene: Scene, kind: str, random: Random) -> Question:
    """A question of `kind` about the scene. Its answer is one word, or two for a place."""
    thing = random.choice(scene.things)
    if kind == "exists":
        return _exists(scene, random)
    text, answer = {
        "colour": (f"What colour is the {thing.shape}?", thing.colour),
        "shape": (f"What shape is in the {thing.place}?", thing.shape),
        "place": (f"Where is the {thing.shape}?", thing.place),
        "size": (f"How large is the {thing.shape}?", thing.size),
        "count": ("How many shapes are there?", NUMBERS[len(scene.things)]),
        "background": ("What colour is the background?", scene.background),
    }[kind]
    return Question(text, answer, kind)


def ask_several(scene: Scene, count: int, random: Random) -> list[Question]:
    """Questions of `count` different kinds."""
    return [ask(scene, kind, random) for kind in random.sample(KINDS, count)]


def fact(random: Random) -> Question:
    """A question that needs no picture."""
    return Question(*random.choice(FACTS), "fact")


def dialogue(first: str, questions: list[Question], system: str = SYSTEM) -> str:
    """A conversation as LLaVA's template `v1` writes it; `first` opens the user's first turn."""
    turns = [f"USER: {question.text} ASSISTANT: {question.answer}</s>" for question in questions]
    turns[0] = turns[0].replace("USER: ", f"USER: {first}", 1)
    return f"{system} ".lstrip() + "".join(turns)


def document(scene: Scene, random: Random) -> str:
    """One line of text to pretrain a language model on: it learns to repeat what it read about a scene."""
    system = SYSTEM if random.random() < 0.3 else ""  # often enough to know it, seldom enough to save time
    draw = random.random()
    if draw < 0.1:
        return caption(scene, random)
    if draw < 0.2:  # exact repetition is where looking back is learned first
        return f"{describe(scene)} {describe(scene)}"
    if draw < 0.4:  # two captions of one scene: the second can be told from the first
        return f"{describe(scene)} {caption(scene, random)}"
    if draw < 0.45:
        return dialogue("", [fact(random) for _ in range(random.randint(1, 3))], system)
    return dialogue(f"{describe(scene)} ", ask_several(scene, random.randint(2, len(KINDS)), random), system)
