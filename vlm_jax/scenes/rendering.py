"""Scenes as pixels: flat colours with soft edges on a light background, under mild noise."""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, UInt8

from vlm_jax.scenes.scene import COLOURS, Scene, SceneObject, radius

FINE = 8  # samples a pixel along each axis
NOISE = 4.0  # levels of 255: standard deviation
# Parts of half a box. All shapes fill their box as far as they can and look equally large.
SQUARE, TRIANGLE, ARM, STAR, NOTCH = 0.88, 0.87, 0.34, 1.05, 0.46


def render(scene: Scene) -> UInt8[np.ndarray, "s s 3"]:
    """The image of a scene; the same bits each time."""
    noise = np.random.default_rng(scene.noise).normal(0, NOISE, (scene.size, scene.size, 3))
    return (_paint(scene) + noise).round().clip(0, 255).astype(np.uint8)


def coverage(obj: SceneObject, size: int) -> Float[np.ndarray, "s s"]:
    """The share of each pixel that the object covers, in an image of `size` pixels."""
    image = np.zeros((size, size))
    image[_box(obj, size)] = _stamp(obj.shape, radius(obj, size))
    return image


def _paint(scene: Scene) -> Float[np.ndarray, "s s 3"]:
    image = np.empty((scene.size, scene.size, 3))
    image[:] = scene.background
    for obj in scene.objects:
        covered = _stamp(obj.shape, radius(obj, scene.size))[..., None]
        box = _box(obj, scene.size)
        image[box] += covered * (np.array(COLOURS[obj.color]) - image[box])
    return image


def _box(obj: SceneObject, size: int) -> tuple[slice, slice]:
    reach = radius(obj, size)
    return slice(obj.y - reach, obj.y + reach), slice(obj.x - reach, obj.x + reach)


@lru_cache
def _stamp(shape: str, reach: int) -> Float[np.ndarray, "b b"]:
    """The share of each pixel of a box of 2 `reach` pixels a side that the shape covers."""
    places = (np.arange(2 * reach * FINE) + 0.5) / (reach * FINE) - 1
    inside = _inside(shape, places[None, :], places[:, None])
    stamp = inside.reshape(2 * reach, FINE, 2 * reach, FINE).mean((1, 3))
    stamp.flags.writeable = False  # it is shared
    return stamp


def _inside(shape: str, across: Float[np.ndarray, "1 n"], down: Float[np.ndarray, "n 1"]) -> Bool[np.ndarray, "n n"]:
    """Which places of the box, -1 to 1 along both axes, the shape covers."""
    far = np.maximum(np.abs(across), np.abs(down))
    match shape:
        case "circle":
            return across**2 + down**2 <= 1
        case "square":
            return far <= SQUARE
        case "triangle":  # its tip is at the top, and its base as wide as the box
            return (np.abs(across) <= (down + TRIANGLE) / (2 * TRIANGLE)) & (down <= TRIANGLE)
        case "star":
            return _in_star(across, down - 0.1)  # its points reach further up than down from their middle
        case "cross":
            return (far <= 1) & (np.minimum(np.abs(across), np.abs(down)) <= ARM)
    raise ValueError(shape)


def _in_star(across: Float[np.ndarray, "1 n"], down: Float[np.ndarray, "n 1"]) -> Bool[np.ndarray, "n n"]:
    """Five points, one of them up, at `STAR` from the middle; the corners between them at `STAR` x `NOTCH`."""
    # By symmetry, half a point of the star decides: between a point (angle 0) and a corner (36 degrees).
    angle = np.abs((np.arctan2(across, -down) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    distance = np.hypot(across, down)
    along, aside = distance * np.cos(angle), distance * np.sin(angle)
    corner = STAR * NOTCH * np.cos(np.pi / 5), STAR * NOTCH * np.sin(np.pi / 5)
    return (STAR - along) * corner[1] >= aside * (STAR - corner[0])
