"""What can be read off a picture of a scene, without the code that drew it."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from vlm_jax.scenes.scene import COLOURS


class Seen(NamedTuple):
    """A thing as pixels show it, places in pixels."""

    size: str
    color: str
    shape: str
    x: float
    y: float


def shape_of(mask):
    """The name of a shape that fills its frame."""
    if mask.mean() > 0.95:
        return "square"
    if (mask == mask[::-1]).mean() > 0.9:
        return "circle" if mask.mean() > 0.68 else "cross"
    return "triangle" if mask.sum(1).argmax() > 0.7 * len(mask) else "star"


def read_off(picture):
    """What is on a picture, from left to right."""
    picture = picture.astype(float)
    ground = np.median(picture.reshape(-1, 3), axis=0)
    labels, count = ndimage.label(np.abs(picture - ground).max(-1) > 60, np.ones((3, 3)))
    seen = []
    for number in range(1, count + 1):
        palette = np.array(list(COLOURS.values()))
        middle = np.median(picture[labels == number], axis=0)
        nearest = int(np.abs(palette - middle).sum(-1).argmin())
        color, rgb = list(COLOURS)[nearest], palette[nearest]
        share = ((picture - ground) @ (rgb - ground)) / ((rgb - ground) @ (rgb - ground))  # of the thing in a pixel
        down, across = np.nonzero((labels == number) & (share > 0.45))
        frame = slice(down.min(), down.max() + 1), slice(across.min(), across.max() + 1)
        width = (across.max() + 1 - across.min()) * 64 / len(picture)
        assert not 13 < width < 18, "neither small nor large"
        seen.append(
            Seen(
                "small" if width < 15 else "large",
                color,
                shape_of((share > 0.45)[frame] & (labels == number)[frame]),
                (across.min() + across.max() + 1) / 2,
                (down.min() + down.max() + 1) / 2,
            )
        )
    return sorted(seen, key=lambda thing: (thing.x, thing.y))
