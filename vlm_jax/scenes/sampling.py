"""Random scenes, and the pairs of colour and shape that most of them may not have."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from vlm_jax.scenes.scene import (
    BASE,
    COLOURS,
    GAP,
    LIGHT,
    NOISES,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    pixels,
    radius,
    rank,
)

Choice = TypeVar("Choice")

CLEARER = 4  # pixels by which the first two objects of a sampled scene are further apart along one axis than the other
TRIES = 100  # placements of the same objects before others are sampled, which are smaller more often than not
Pair = tuple[str, str]
"""A colour and a shape."""
HELD_OUT_PAIRS: tuple[Pair, ...] = (
    ("blue", "circle"),
    ("purple", "square"),
    ("green", "triangle"),
    ("red", "star"),
    ("cyan", "cross"),
)
ALL_PAIRS: tuple[Pair, ...] = tuple(itertools.product(COLOURS, SHAPES))
SEEN_PAIRS: tuple[Pair, ...] = tuple(pair for pair in ALL_PAIRS if pair not in HELD_OUT_PAIRS)


def one_of(random: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    """One of them, each equally likely."""
    return choices[int(random.integers(len(choices)))]


class Sampling(NamedTuple):
    """Which scenes are sampled."""

    size: int = BASE
    fewest: int = 1
    most: int = 4
    first: tuple[Pair, ...] = SEEN_PAIRS
    """Colours and shapes that one object of each scene is sampled from."""
    others: tuple[Pair, ...] = SEEN_PAIRS


def sample_scene(random: np.random.Generator, sampling: Sampling) -> Scene:
    """A scene with each number of objects equally likely, and each place that is left."""
    count = int(random.integers(sampling.fewest, sampling.most + 1))
    while True:
        kinds = _kinds(random, sampling, count)
        for _ in range(TRIES):
            objects = _placed(random, kinds, sampling.size)
            if objects and _one_axis_is_clearer(objects, sampling.size):
                red, green, blue = (int(level) for level in random.integers(*LIGHT, 3))
                return Scene(sampling.size, objects, (red, green, blue), int(random.integers(NOISES)))


def _kinds(random: np.random.Generator, sampling: Sampling, count: int) -> list[tuple[str, Pair]]:
    """Different sizes with colours and shapes, large ones first: they are placed while there is room."""
    kinds: list[tuple[str, Pair]] = []
    while len(kinds) < count:
        pairs = sampling.others if kinds else sampling.first
        kind = (one_of(random, tuple(SIZES)), one_of(random, pairs))
        if kind not in kinds:
            kinds.append(kind)
    return sorted(kinds, key=lambda kind: -SIZES[kind[0]])


def _placed(random: np.random.Generator, kinds: list[tuple[str, Pair]], size: int) -> tuple[SceneObject, ...]:
    """The objects where they fit, one after the other; none where a place for one is missing."""
    objects: list[SceneObject] = []
    for kind, (color, shape) in kinds:
        reach = pixels(SIZES[kind], size)
        free = np.zeros((size + 1, size + 1), bool)  # rows are y
        free[reach : size - reach + 1, reach : size - reach + 1] = True
        for obj in objects:
            near = reach + radius(obj, size) + pixels(GAP, size) - 1
            free[max(0, obj.y - near) : obj.y + near + 1, max(0, obj.x - near) : obj.x + near + 1] = False
        places = np.flatnonzero(free)
        if not len(places):
            return ()
        y, x = divmod(int(random.choice(places)), size + 1)
        objects.append(SceneObject(shape, color, kind, x, y))
    return tuple(objects)


def _one_axis_is_clearer(objects: tuple[SceneObject, ...], size: int) -> bool:
    """Whether the relation between the first two objects is no toss-up."""
    if len(objects) < 2:
        return True
    subject, reference = sorted(objects, key=rank)[:2]
    return abs(abs(subject.x - reference.x) - abs(subject.y - reference.y)) >= pixels(CLEARER, size)
