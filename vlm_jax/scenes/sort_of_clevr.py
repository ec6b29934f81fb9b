"""Sort-of-CLEVR (Santoro et al. 2017, section 4.2 and supplement): coloured squares and circles, and how they relate.

Images of 75 x 75 pixels with six objects, one of each colour. Ten relational and ten other questions an image, in
English sentences of several wordings.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

SIZE, HALF = 75, 5  # pixels: side of the image, half the side of a square and the radius of a circle
COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "orange": (255, 165, 0),
    "gray": (128, 128, 128),
    "yellow": (255, 255, 0),
}
QUESTIONS = 10  # of either kind

# Topics of questions about the object of a colour, each in several wordings of one meaning; in the paper a topic is a
# number. A count includes the object itself.
RELATIONAL = {
    "closest": (
        "What is the shape of the object closest to the {} object?",
        "Which shape is nearest to the {} object?",
        "Is the object nearest to the {} one a square or a circle?",
    ),
    "furthest": (
        "What is the shape of the object furthest from the {} object?",
        "Which shape is farthest from the {} object?",
        "Is the object farthest from the {} one a square or a circle?",
    ),
    "count": (
        "How many objects have the shape of the {} object?",
        "How many objects are shaped like the {} one?",
        "Count the objects with the shape of the {} one.",
    ),
}
NON_RELATIONAL = {
    "shape": (
        "What is the shape of the {} object?",
        "Which shape does the {} object have?",
        "Is the {} object a square or a circle?",
    ),
    "horizontal": (
        "Is the {} object on the left?",
        "Is the {} object in the left half of the picture?",
        "Is the {} one left of the middle?",
    ),
    "vertical": (
        "Is the {} object at the top?",
        "Is the {} object in the upper half of the picture?",
        "Is the {} one above the middle?",
    ),
}


class Scene(NamedTuple):
    """Six objects in the order of `COLOURS`."""

    centres: Int[np.ndarray, "6 2"]
    """x and y in pixels from the upper left corner; no two squares there would overlap."""
    circles: tuple[bool, ...]
    """Which are circles; the others are squares."""


def sample_scene(random: np.random.Generator) -> Scene:
    """Objects that do not overlap, and of which each has one closest and one furthest other: no answer is a toss-up."""
    while True:
        centres = np.empty((0, 2), np.int64)
        while len(centres) < len(COLOURS):
            centre = random.integers(HALF, SIZE - HALF + 1, (1, 2))
            if (np.abs(centres - centre).max(1) >= 2 * HALF).all():
                centres = np.concatenate([centres, centre])
        ordered = np.sort(_distances(centres), axis=1)  # the first of each row is the object itself
        if (ordered[:, 1] < ordered[:, 2]).all() and (ordered[:, -2] < ordered[:, -1]).all():
            return Scene(centres, tuple(bool(circle) for circle in random.integers(2, size=len(COLOURS))))


def _distances(centres: Int[np.ndarray, "6 2"]) -> Int[np.ndarray, "6 6"]:
    """Squared distances, which need no rounding."""
    return np.square(centres[:, None] - centres[None]).sum(-1)


def paint(scene: Scene) -> UInt8[np.ndarray, "75 75 3"]:
    """The scene on white; a centre lies on the corner of four pixels, so that shapes are symmetric about it."""
    image = np.full((SIZE, SIZE, 3), 255, np.uint8)
    middles = np.arange(SIZE) + 0.5
    for (x, y), circle, colour in zip(scene.centres, scene.circles, COLOURS.values(), strict=True):
        across, down = np.abs(middles - x)[None], np.abs(middles - y)[:, None]
        inside = across**2 + down**2 < HALF**2 if circle else np.maximum(across, down) < HALF
        image[inside] = colour
    return image


def generate_questions(scene: Scene, image_id: str, random: np.random.Generator) -> list[dict[str, str]]:
    """Ten different relational questions and ten different others, each in one of its wordings."""
    questions = []
    for kind, wordings in (("relational", RELATIONAL), ("non_relational", NON_RELATIONAL)):
        about = [(topic, colour) for topic in wordings for colour in COLOURS]
        for chosen in sorted(random.permutation(len(about))[:QUESTIONS]):
            topic, colour = about[chosen]
            wording = str(random.choice(wordings[topic]))
            questions.append(
                {
                    "question_id": f"{image_id}/{topic}/{colour}",
                    "text": wording.format(colour),
                    "answers": true_answer(scene, topic, colour),
                    "kind": kind,
                }
            )
    return questions


def true_answer(scene: Scene, topic: str, colour: str) -> str:
    """What is true of the scene: a shape, a count from 1 to 6, yes or no."""
    this = list(COLOURS).index(colour)
    x, y = scene.centres[this].tolist()
    distances = _distances(scene.centres)[this]
    match topic:
        case "closest":
            return _shape(scene, int(np.argsort(distances)[1]))
        case "furthest":
            return _shape(scene, int(np.argmax(distances)))
        case "count":
            return str(scene.circles.count(scene.circles[this]))
        case "shape":
            return _shape(scene, this)
        case "horizontal":
            return _yes_no(x < SIZE / 2)
        case "vertical":
            return _yes_no(y < SIZE / 2)
    raise ValueError(topic)


def _shape(scene: Scene, which: int) -> str:
    return "circle" if scene.circles[which] else "square"


def _yes_no(true: bool) -> str:
    return "yes" if true else "no"
