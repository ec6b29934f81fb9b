"""What can be read off an image of a scene, without the code that renders it."""

from typing import NamedTuple

import numpy as np
import pytest
from scipy import ndimage

from vlm_jax.scenes.rendering import render
from vlm_jax.scenes.scene import COLOURS


def render_clean(scene):
    """The image of a scene without its noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm_jax.scenes.rendering.NOISE", 0.0)
        return render(scene)


class Seen(NamedTuple):
    """An object as pixels show it, places in pixels."""

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


def read_off(image):
    """What is on an image, from left to right."""
    image = image.astype(float)
    ground = np.median(image.reshape(-1, 3), axis=0)
    labels, count = ndimage.label(np.abs(image - ground).max(-1) > 60, np.ones((3, 3)))
    detected = []
    for number in range(1, count + 1):
        palette = np.array(list(COLOURS.values()))
        middle = np.median(image[labels == number], axis=0)
        nearest = int(np.abs(palette - middle).sum(-1).argmin())
        color, rgb = list(COLOURS)[nearest], palette[nearest]
        share = ((image - ground) @ (rgb - ground)) / ((rgb - ground) @ (rgb - ground))  # of the object in a pixel
        down, across = np.nonzero((labels == number) & (share > 0.45))
        frame = slice(down.min(), down.max() + 1), slice(across.min(), across.max() + 1)
        width = (across.max() + 1 - across.min()) * 64 / len(image)
        assert not 13 < width < 18, "neither small nor large"
        detected.append(
            Seen(
                "small" if width < 15 else "large",
                color,
                shape_of((share > 0.45)[frame] & (labels == number)[frame]),
                (across.min() + across.max() + 1) / 2,
                (down.min() + down.max() + 1) / 2,
            )
        )
    return sorted(detected, key=lambda obj: (obj.x, obj.y))
