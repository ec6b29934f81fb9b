"""What is right about a picture that was made from a caption: the things read off it, held against what was wanted."""

from collections import Counter
from typing import NamedTuple

from vlm_jax.scenes.language import ATTRIBUTES, caption, described, mention
from vlm_jax.scenes.pictures import SeenScene
from vlm_jax.scenes.rules import check_caption
from vlm_jax.scenes.scene import Scene, clearest_relation


class PictureCheck(NamedTuple):
    """How a picture fares against the scene that it was to show. Places count only in the relation."""

    objects: float
    """The share of the wanted things that are there in colour and shape, matched one to one, 0 to 1."""
    objects_and_sizes: float
    """The same in size, colour and shape."""
    count: bool
    """Whether there are as many things as wanted, whatever they look like."""
    relation: bool | None
    """Whether two different things fit the two that the complete caption relates, and stand so; None for one thing."""
    all: bool
    """Whether the complete caption is true of the picture and nothing else is on it."""


def check_picture(seen: SeenScene, wanted: Scene) -> PictureCheck:
    """Hold what is seen on a picture against the scene whose complete caption the picture was made from.

    Objects, their number and their relation are scored apart, as PaintSkills does with a detector (Cho et al.,
    arXiv:2202.04053, `paintskills/detr/datasets/skill_eval.py` in j-min/DallEval). As in GenEval (Ghosh et al.,
    arXiv:2310.11513, section 3, `evaluation/evaluate_images.py` in djghosh13/geneval), colour and shape must belong to
    the same object, a number must be exact, and a relation needs a margin. Here that is the margin of `holds`, as for
    captions; GenEval's grows with the two objects.
    """
    count = len(seen.things) + seen.unclear == len(wanted.things)
    return PictureCheck(
        objects=_share_found(seen, wanted, ("color", "shape")),
        objects_and_sizes=_share_found(seen, wanted, ATTRIBUTES),
        count=count,
        relation=_relation_holds(seen, wanted) if len(wanted.things) > 1 else None,
        all=count and not seen.unclear and check_caption(caption(wanted), seen).true,
    )


def _share_found(seen: SeenScene, wanted: Scene, names: tuple[str, ...]) -> float:
    """Where every thing is named by the same attributes, the best match one to one is what two multisets share."""
    there, named = (Counter(mention(thing, names) for thing in scene.things) for scene in (seen, wanted))
    return (there & named).total() / len(wanted.things)


def _relation_holds(seen: SeenScene, wanted: Scene) -> bool:
    """By colour and shape, so that a wrong size is not counted twice; sizes where they alone tell the two apart."""
    if not seen.things:
        return False
    one, other = wanted.things[:2]
    alike = (one.color, one.shape) == (other.color, other.shape)
    names = ATTRIBUTES if alike else ("color", "shape")
    first, second = (described(mention(thing, names)) for thing in (one, other))
    return check_caption(f"a {first} {clearest_relation(one, other)} a {second}", seen).relations_true == 1
