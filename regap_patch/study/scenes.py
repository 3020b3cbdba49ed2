"""Scenes of coloured shapes, and how they look.

A scene is a value: everything said about a picture (`language.py`) and every pixel of it follow from the
scene alone. Pixels come from integer grids and comparisons, so they are the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
COLOURS = {
    "red": (215, 40, 40),
    "green": (40, 165, 60),
    "blue": (45, 80, 220),
    "yellow": (240, 215, 50),
    "purple": (150, 60, 190),
    "orange": (240, 135, 30),
}
SIZES = {"small": 0.5, "large": 0.85}  # radius, as a part of half a cell
PLACES = ("top left", "top right", "bottom left", "bottom right")
BACKGROUNDS = {"black": (15, 15, 15), "grey": (120, 120, 120), "white": (245, 245, 245)}
HELD_OUT = 300  # draws; few enough that all kinds of scenes are left to learn from
JITTER = 0.12  # how far a centre may stray, as a part of half a cell


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape: its looks, the quarter it stands in, and its offset from the middle of it, in [-1, 1]."""

    shape: str
    colour: str
    size: str
    place: str
    offset: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """One to three things on a background; no two share a quarter or a shape: "the circle" is one thing."""

    background: str
    things: tuple[Thing, ...]

    def content(self) -> Scene:
        """The scene with every thing in the middle of its quarter: scenes of one content read the same."""
        centred = tuple(replace(thing, offset=(0.0, 0.0)) for thing in self.things)
        return Scene(self.background, centred)


def draw_scene(random: Random, max_things: int = 3) -> Scene:
    """A scene drawn from `random`; the things come in reading order."""
    count = random.randint(1, max_things)
    places = sorted(random.sample(range(len(PLACES)), count))
    shapes = random.sample(SHAPES, count)
    things = tuple(
        Thing(
            shape=shape,
            colour=random.choice(tuple(COLOURS)),
            size=random.choice(tuple(SIZES)),
            place=PLACES[place],
            offset=(random.randint(-8, 8) / 8, random.randint(-8, 8) / 8),
        )
        for place, shape in zip(places, shapes, strict=True)
    )
    return Scene(background=random.choice(tuple(BACKGROUNDS)), things=things)


def held_out_scenes() -> list[Scene]:
    """Scenes for evaluation, the same in every world: nothing that teaches shows or tells their like."""
    random = Random("held-out scenes")
    return list(dict.fromkeys(draw_scene(random).content() for _ in range(HELD_OUT)))


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where a shape of radius 1 around the origin lies; y grows downwards."""
    import numpy as np

    across, down = np.abs(x), np.abs(y)
    distance = x * x + y * y
    inside: dict[str, np.ndarray] = {
        "circle": distance <= 1,
        "square": np.maximum(across, down) <= 0.85,
        "triangle": (y <= 0.8) & (across <= (y + 1) / 1.8),
        "diamond": across + down <= 1,
        "cross": (np.minimum(across, down) <= 0.3) & (np.maximum(across, down) <= 1),
        "ring": (distance <= 1) & (distance >= 0.3),
    }
    return inside[shape]


def paint(scene: Scene, image_size: int) -> np.ndarray:
    """Pixels (image_size, image_size, 3), uint8."""
    import numpy as np

    pixels = np.empty((image_size, image_size, 3), dtype=np.uint8)
    pixels[:] = BACKGROUNDS[scene.background]
    middles = np.arange(image_size) + 0.5
    half = image_size / 4  # half a cell
    for thing in scene.things:
        row, column = divmod(PLACES.index(thing.place), 2)
        radius = SIZES[thing.size] * half
        x = (middles - half * (1 + 2 * column + JITTER * thing.offset[0])) / radius
        y = (middles - half * (1 + 2 * row + JITTER * thing.offset[1])) / radius
        pixels[_inside(thing.shape, x[None, :], y[:, None])] = COLOURS[thing.colour]
    return pixels
