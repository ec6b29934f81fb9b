"""What is right about an image that was made from a caption: the detected objects are compared with the scene."""

from collections import Counter
from typing import NamedTuple

from vlm_jax.scenes.detector import DetectedScene
from vlm_jax.scenes.language import ATTRIBUTES, caption, described, mention
from vlm_jax.scenes.rules import check_caption
from vlm_jax.scenes.scene import Scene, clearest_relation


class ImageCheck(NamedTuple):
    """How well an image shows its scene. Places count only in the relation."""

    objects: float
    """The share of the wanted objects that are there in colour and shape, matched one to one, 0 to 1."""
    objects_and_sizes: float
    """The same in size, colour and shape."""
    count: bool
    """Whether there are as many objects as wanted, whatever they look like."""
    relation: bool | None
    """Whether two different objects fit the two of the caption's relation, and stand so; None for one object."""
    all: bool
    """Whether the complete caption is true of the image and nothing else is on it."""


def check_image(detected: DetectedScene, wanted: Scene) -> ImageCheck:
    """Compare the objects on an image with the scene whose complete caption the image was made from.

    Objects, their number and their relation are scored apart, as PaintSkills does with a detector (Cho et al.,
    arXiv:2202.04053, `paintskills/detr/datasets/skill_eval.py` in j-min/DallEval). As in GenEval (Ghosh et al.,
    arXiv:2310.11513, section 3, `evaluation/evaluate_images.py` in djghosh13/geneval), colour and shape must belong to
    the same object. A number must be exact, and a relation needs a margin. Here that is the margin of `holds`, as for
    captions; GenEval's grows with the two objects.
    """
    count = len(detected.objects) + detected.unclear == len(wanted.objects)
    return ImageCheck(
        objects=_share_found(detected, wanted, ("color", "shape")),
        objects_and_sizes=_share_found(detected, wanted, ATTRIBUTES),
        count=count,
        relation=_relation_holds(detected, wanted) if len(wanted.objects) > 1 else None,
        all=count and not detected.unclear and check_caption(caption(wanted), detected).true,
    )


def _share_found(detected: DetectedScene, wanted: Scene, names: tuple[str, ...]) -> float:
    """Where every object is named by the same attributes, the best match one to one is what two multisets share."""
    present, named = (Counter(mention(obj, names) for obj in scene.objects) for scene in (detected, wanted))
    return (present & named).total() / len(wanted.objects)


def _relation_holds(detected: DetectedScene, wanted: Scene) -> bool:
    """By colour and shape, so that a wrong size is not counted twice; sizes where they alone tell the two apart."""
    if not detected.objects:
        return False
    subject, reference = wanted.objects[:2]
    alike = (subject.color, subject.shape) == (reference.color, reference.shape)
    names = ATTRIBUTES if alike else ("color", "shape")
    first, second = (described(mention(obj, names)) for obj in (subject, reference))
    return check_caption(f"a {first} {clearest_relation(subject, reference)} a {second}", detected).relations_true == 1
