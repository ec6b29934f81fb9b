"""A rule-based detector: which objects are on an image of a scene, and where.

Nothing is learned, so what is read off a generated image is no other model's opinion. An image may be somewhat
blurred, noisy or off in its colours, as one is that an image tokenizer's decoder made.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Shaped, UInt8

from vlm_jax.errors import InputError
from vlm_jax.scenes.rendering import coverage
from vlm_jax.scenes.scene import (
    BASE,
    COLOURS,
    LIGHT,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    check_side,
    pixels,
    radius,
    rank,
)

# Levels of 255.
LIGHTER = 190  # every channel of a background is above it, and some channel of each colour far below
DARK = 30.0  # some channel of each colour is about so dark
# Shares: 0 is the background, 1 an object.
INSIDE = 0.6  # from where a pixel is part of a spot; blurred edges of two objects do not reach it between them
CORE = 0.85  # of the darkness that a tenth of a spot exceeds: from where its colour is not mixed with the background
SPECK = 0.33  # of the smallest object's area: what is smaller is no object
LEAST_OVERLAP = 0.7  # intersection over union of a spot and the shape that it is most like
# Pixels of an image of `BASE` pixels.
RIM = 3  # around a spot: how far its soft edge and its thin tips reach
SOFT = 0.8  # standard deviation of the blur of shapes that are compared beside sharp ones
LARGEST = 15  # half the side of a box


@dataclasses.dataclass(frozen=True)
class DetectedScene(Scene):
    """The objects on an image, as a scene has them: captions are compared with both alike.

    Unlike in a rendered scene, there may be no object, many, the same twice, and objects closer than `GAP`.
    `noise` says nothing.
    """

    unclear: int = 0
    """How many further spots there are that look like none of the objects."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "objects", tuple(sorted(self.objects, key=rank)))


def detect_scene(image: Shaped[np.ndarray, "..."]) -> DetectedScene:
    """What is on an image, uint8 [S, S, 3] in RGB, on a light background; raises `InputError` for any other array.

    Each clear spot is taken for the object that covers most nearly the same pixels. Objects that touch
    are one spot, and mostly an unclear one.
    """
    _check(image)
    background = _background(image)
    darkness = ((background - image) / (background - DARK)).max(-1)
    detected = [_detect_object(spot, background, len(image)) for spot in _spots(image, darkness)]
    objects = tuple(obj for obj in detected if obj)
    red, green, blue = (round(level) for level in background.tolist())
    return DetectedScene(len(image), objects, (red, green, blue), unclear=len(detected) - len(objects))


def _check(image: Shaped[np.ndarray, "..."]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape != (len(image), len(image), 3):
        raise InputError(f"an image of a scene must be uint8 [side, side, 3], not {image.dtype} {list(image.shape)}")
    check_side(len(image))


def _background(image: UInt8[np.ndarray, "s s 3"]) -> Float[np.ndarray, " 3"]:
    """The median of what is light; the middle of what a background may be where hardly anything is."""
    light = image[(image > LIGHTER).all(-1)]
    if len(light) < image.size / 100:
        return np.full(3, np.mean(LIGHT), np.float32)
    return np.median(light, axis=0).astype(np.float32)


class _Spot(NamedTuple):
    """A part of an image that stands out: the pixels of its frame, and which of them are part of it."""

    x: int
    y: int
    """The upper left corner of the frame."""
    image: UInt8[np.ndarray, "h w 3"]
    darkness: Float[np.ndarray, "h w"]
    inside: Bool[np.ndarray, "h w"]


def _spots(image: UInt8[np.ndarray, "s s 3"], darkness: Float[np.ndarray, "s s"]) -> Iterator[_Spot]:
    """What stands out clearly, is connected and no speck, each in a frame that leaves room for its rim."""
    labels, _ = scipy.ndimage.label(darkness > INSIDE)
    areas = np.bincount(labels.ravel())
    least = SPECK * min(map(_area, SHAPES)) * pixels(min(SIZES.values()), len(image)) ** 2
    rim = pixels(RIM, len(image))
    for number, (down, across) in enumerate(scipy.ndimage.find_objects(labels), start=1):
        if areas[number] >= least:
            y, x = max(0, down.start - rim), max(0, across.start - rim)
            frame = slice(y, down.stop + rim), slice(x, across.stop + rim)
            yield _Spot(x, y, image[frame], darkness[frame], labels[frame] == number)


def _detect_object(spot: _Spot, background: Float[np.ndarray, " 3"], size: int) -> SceneObject | None:
    """The object that a spot looks like, in an image of `size` pixels; None where it looks like none."""
    core = spot.inside & (spot.darkness >= CORE * np.quantile(spot.darkness[spot.inside], 0.9))
    ink = np.median(spot.image[core], axis=0)
    color = min(COLOURS, key=lambda name: float(np.linalg.norm(COLOURS[name] - ink)))
    contrast = COLOURS[color] - background
    share = (spot.image - background) @ contrast / (contrast @ contrast)
    near = scipy.ndimage.binary_dilation(spot.inside, iterations=pixels(RIM, size))
    covered = np.where(near, share.clip(0, 1), 0).astype(np.float32)
    best = min(_fits(covered, size), key=lambda fit: fit.error, default=None)
    if best is None or _overlap(best, float(covered.sum())) < LEAST_OVERLAP:
        return None
    kind = min(SIZES, key=lambda name: abs(pixels(SIZES[name], size) - best.reach))
    return SceneObject(best.shape, color, kind, spot.x + best.x, spot.y + best.y)


class _Fit(NamedTuple):
    """A shape where it is most like what is covered."""

    shape: str
    reach: int
    """Half the side of its box, in pixels."""
    x: int
    y: int
    error: float
    """The sum of squared differences, but for what is the same for all shapes."""
    stamp: Float[np.ndarray, " P"]
    """What it covers of a window."""
    window: Float[np.ndarray, " P"]
    """What is covered of it."""


def _overlap(fit: _Fit, area: float) -> float:
    """Intersection over union, where `area` is covered within and beyond the window."""
    both = float(np.minimum(fit.stamp, fit.window).sum())
    return both / (float(fit.stamp.sum()) + area - both)


def _fits(covered: Float[np.ndarray, "h w"], size: int) -> Iterator[_Fit]:
    """Each shape in the two sizes between which it has the area that is covered, which blur leaves as it is.

    So a shape is told from others in any size.
    """
    across, down = (round(place) for place in _middle(covered))
    area, largest = float(covered.sum()), pixels(LARGEST, size)
    padded = np.pad(covered, 2 * largest)
    for shape in SHAPES:
        smaller = int(math.sqrt(area / _area(shape)))
        for reach in range(max(smaller, 1), min(smaller + 1, largest) + 1):
            stamps = _stamps(shape, reach, size)
            y, x = down + 2 * largest - stamps.half, across + 2 * largest - stamps.half
            window = padded[y : y + 2 * stamps.half, x : x + 2 * stamps.half].ravel()
            errors = stamps.squares - 2 * stamps.covered @ window
            best = int(errors.argmin())
            right, below = stamps.places[best]
            error, stamp = float(errors[best]), stamps.covered[best]
            yield _Fit(shape, reach, across + right, down + below, error, stamp, window)


class _Stamps(NamedTuple):
    """A shape at nine places, sharp and soft, as it covers the P pixels of a square window."""

    half: int
    """Half the side of the window, in pixels."""
    places: tuple[tuple[int, int], ...]
    """The middle of the shape's box from the middle of the window, where its centre of mass is to a pixel."""
    covered: Float[np.ndarray, "18 P"]
    squares: Float[np.ndarray, "18"]
    """The sums of squares of what is covered."""


@cache
def _stamps(shape: str, reach: int, size: int) -> _Stamps:
    side = -(-reach * BASE // SIZES["small"])  # of an image in which half the box of a small object is `reach` pixels
    middle, half = side // 2, reach * 3 // 2 + 3
    frame = slice(middle - half, middle + half)
    obj = SceneObject(shape, next(iter(COLOURS)), "small", middle, middle)
    x, y = (round(middle - place) for place in _middle(coverage(obj, side)))
    places = tuple((x + across, y + down) for down, across in itertools.product((-1, 0, 1), repeat=2))
    moved = (dataclasses.replace(obj, x=middle + across, y=middle + down) for across, down in places)
    sharp = [coverage(shifted, side)[frame, frame] for shifted in moved]
    soft = [scipy.ndimage.gaussian_filter(covered_area, SOFT * size / BASE) for covered_area in sharp]
    covered = np.array([*sharp, *soft], np.float32).reshape(18, -1)
    return _Stamps(half, places * 2, covered, (covered**2).sum(1))


@cache
def _area(shape: str) -> float:
    """That of a shape whose box has half a side of 1."""
    obj = SceneObject(shape, next(iter(COLOURS)), "large", 4 * BASE, 4 * BASE)
    return float(coverage(obj, 8 * BASE).sum()) / radius(obj, 8 * BASE) ** 2


def _middle(covered: Float[np.ndarray, "h w"]) -> tuple[float, float]:
    """The centre of mass, x and y in pixels from the upper left corner."""
    y, x = scipy.ndimage.center_of_mass(covered)
    return float(x) + 0.5, float(y) + 0.5
