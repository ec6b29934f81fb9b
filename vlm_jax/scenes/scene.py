"""Scenes: one to six coloured shapes on a square image, what is where, and both kept as JSON.

Places and lengths are whole pixels from the upper left corner. Lengths are stated for an image of 64 pixels and grow
with it, so a scene of 128 pixels looks the same, only finer.
"""

import dataclasses
import functools
import itertools
import json
import reprlib
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from vlm_jax.errors import InputError, one_of

BASE = 64  # pixels: the side for which the lengths below are stated; a side is a multiple of it
SIZES = {"large": 11, "small": 6}  # pixels: half the side of the box that holds an object
COLOURS = {
    "red": (220, 30, 35),
    "yellow": (250, 205, 20),
    "green": (35, 150, 50),
    "cyan": (20, 195, 215),
    "blue": (35, 65, 215),
    "purple": (145, 40, 165),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
MAX_OBJECTS = 6
GAP = 2  # pixels that stay empty between the boxes of two objects
MARGIN = 8  # pixels between two middles from which "left of", "right of", "above" and "below" clearly hold
LIGHT = (222, 250)  # the darkest level that a background may have, and the one above its lightest
NOISES = 2**32  # how many seeds of noise there are

_STRICT = ConfigDict(strict=True, extra="forbid")  # of what `from_json` reads

RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}  # across, down
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclasses.dataclass(frozen=True)
class SceneObject:
    """One shape; `x` and `y` are the middle of its box, a corner of four pixels."""

    shape: str
    color: str
    size: str
    x: int
    y: int
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        for name, choices in (("shape", SHAPES), ("color", COLOURS), ("size", SIZES)):
            value = getattr(self, name)
            if value not in choices:
                raise InputError(f"a scene object has no {name} {reprlib.repr(value)}; {one_of(choices)}")


@dataclasses.dataclass(frozen=True)
class Scene:
    """Objects on a light background, in one order: large before small, then by the order of colours, then of shapes.

    No two objects are the same in size, colour and shape, all lie inside the image, and boxes are `GAP` pixels apart;
    raises `InputError` where that is not so.
    """

    size: int
    """Pixels a side."""
    objects: tuple[SceneObject, ...]
    background: tuple[int, int, int] = (240, 240, 240)
    noise: int = 0
    """The seed of the noise, so that a scene is always the same image."""
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        object.__setattr__(self, "objects", tuple(sorted(self.objects, key=rank)))
        _check(self)


def rank(obj: SceneObject) -> tuple[int, int, int]:
    """What objects are ordered by."""
    return list(SIZES).index(obj.size), list(COLOURS).index(obj.color), SHAPES.index(obj.shape)


def pixels(length: int, size: int) -> int:
    """A length that is stated for `BASE` pixels, in an image of `size` pixels."""
    return length * size // BASE


def radius(obj: SceneObject, size: int) -> int:
    """Half the side of the object's box in an image of `size` pixels."""
    return pixels(SIZES[obj.size], size)


def _check(scene: Scene) -> None:
    check_side(scene.size)
    if not 1 <= len(scene.objects) <= MAX_OBJECTS:
        raise InputError(f"a scene has 1 to {MAX_OBJECTS} objects, not {len(scene.objects)}")
    if not all(LIGHT[0] <= level < LIGHT[1] for level in scene.background):
        raise InputError(f"a background has levels from {LIGHT[0]} to {LIGHT[1] - 1}, not {scene.background}")
    if not 0 <= scene.noise < NOISES:
        raise InputError(f"the seed of the noise must be at least 0 and below {NOISES}, not {scene.noise}")
    for obj in scene.objects:
        reach = radius(obj, scene.size)
        if not (reach <= obj.x <= scene.size - reach and reach <= obj.y <= scene.size - reach):
            raise InputError(f"the {_named(obj)} does not lie inside an image of {scene.size} pixels")
    gap = pixels(GAP, scene.size)
    for first, second in itertools.combinations(scene.objects, 2):
        if rank(first) == rank(second):
            raise InputError(f"a scene has only one {first.size} {first.color} {first.shape}")
        distance = (
            max(abs(first.x - second.x), abs(first.y - second.y))
            - radius(first, scene.size)
            - radius(second, scene.size)
        )
        if distance < gap:
            raise InputError(f"the {_named(first)} and the {_named(second)} are less than {gap} pixels apart")


def check_side(size: int) -> None:
    """Refuse a side that lengths do not fit."""
    if size not in range(BASE, 8 * BASE + 1, BASE):
        raise InputError(f"the side of a scene must be a multiple of {BASE} up to {8 * BASE} pixels, not {size}")


def _named(obj: SceneObject) -> str:
    return f"{obj.size} {obj.color} {obj.shape} at ({obj.x}, {obj.y})"


def holds(relation: str, first: SceneObject, second: SceneObject, *, size: int) -> bool:
    """Whether the middle of `first` is at least `MARGIN` pixels to that side of the middle of `second`."""
    across, down = RELATIONS[relation]
    return across * (first.x - second.x) + down * (first.y - second.y) >= pixels(MARGIN, size)


def clearest_relation(first: SceneObject, second: SceneObject) -> str:
    """The relation along the axis on which the two are further apart; it always holds, since boxes do not touch."""
    across, down = first.x - second.x, first.y - second.y
    if abs(across) >= abs(down):
        return "left of" if across < 0 else "right of"
    return "above" if down < 0 else "below"


def to_json(scene: Scene) -> str:
    """The scene as one line of JSON."""
    return json.dumps(dataclasses.asdict(scene), separators=(",", ":"))


def from_json(text: str) -> Scene:
    """The scene that `to_json` wrote; raises `InputError` in one line for anything else."""
    try:
        return _adapter().validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # from the checks of the two classes
            raise InputError(str(first["ctx"]["error"])) from None
        place, value = ".".join(map(str, first["loc"])) or "the whole", reprlib.repr(first["input"])
        raise InputError(f"no scene in JSON: {place} {value}: {first['msg']}") from None


@functools.cache
def _adapter() -> TypeAdapter:
    return TypeAdapter(Scene)
