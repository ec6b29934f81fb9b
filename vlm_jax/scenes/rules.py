"""What is true of a scene: a caption is compared with it, statement by statement.

The scene of a rendered image is known, so nothing has to be recognised.
"""

import itertools
from typing import NamedTuple

import numpy as np
import scipy

from vlm_jax.scenes.language import ATTRIBUTES, Mention
from vlm_jax.scenes.parsing import Relation, Statements, parse_caption
from vlm_jax.scenes.scene import Scene, SceneObject, holds


class CaptionCheck(NamedTuple):
    """How a caption fares. Every phrase is taken to name another object, one with a number so many objects."""

    true: bool
    """Whether different objects fit all phrases, every relation holds and every number is exact.

    A caption is not true if it says nothing or if a part of it is not understood.
    """
    objects_named: float
    """The share of the scene's objects that have a phrase of their own which fits: 1 where nothing is left out."""
    attributes: int
    """Words for a size, a colour or a shape, true or not."""
    hallucinated: int
    """Objects that are named beyond those, however phrases and objects are matched one to one."""
    relations: int
    """Relations that are stated."""
    relations_true: int
    """Those for which two different objects fit the two phrases and stand so, each relation taken alone."""
    understood: bool
    """Whether the whole text fits the grammar."""


def check_caption(text: str, scene: Scene) -> CaptionCheck:
    """Compare a caption, complete or free, with a scene."""
    statements = parse_caption(text)
    named = [statements.mentions[position] for position in _named(statements)]
    fitting = _matched(named, scene.objects)
    return CaptionCheck(
        true=bool(statements.mentions)
        and not statements.unknown
        and fitting == len(named)
        and _true(statements, scene),
        objects_named=fitting / max(1, len(scene.objects)),  # on an image there may be nothing to see
        attributes=sum(getattr(mention, name) is not None for mention in statements.mentions for name in ATTRIBUTES),
        hallucinated=len(named) - fitting,
        relations=len(statements.relations),
        relations_true=sum(_possible(relation, statements, scene) for relation in statements.relations),
        understood=not statements.unknown,
    )


def _named(statements: Statements) -> list[int]:
    """For every object that is named, the position of the mention that names it."""
    return [
        position
        for position, mention in enumerate(statements.mentions)
        for _ in range(1 if mention.number is None else mention.number)
    ]


def _matched(mentions: list[Mention], objects: tuple[SceneObject, ...]) -> int:
    """How many mentions can have a fitting object of their own at once."""
    shape = len(mentions), len(objects)
    fits = np.array([mention.fits(obj) for mention in mentions for obj in objects], bool).reshape(shape)
    return int(fits[scipy.optimize.linear_sum_assignment(fits, maximize=True)].sum())


def _possible(relation: Relation, statements: Statements, scene: Scene) -> bool:
    first, second = statements.mentions[relation.subject], statements.mentions[relation.object]
    return any(
        first.fits(this) and second.fits(that) and holds(relation.name, this, that, size=scene.size)
        for this in scene.objects
        for that in scene.objects
    )


def _true(statements: Statements, scene: Scene) -> bool:
    """Whether numbers are exact, and some choice of different objects fits all phrases and relations at once."""
    if any(sum(map(count.fits, scene.objects)) != count.number for count in statements.counts):
        return False
    named = _named(statements)
    return any(
        all(statements.mentions[position].fits(obj) for position, obj in zip(named, chosen, strict=True))
        and all(_stands(relation, dict(zip(named, chosen, strict=True)), scene) for relation in statements.relations)
        for chosen in itertools.permutations(scene.objects, len(named))
    )


def _stands(relation: Relation, chosen: dict[int, SceneObject], scene: Scene) -> bool:
    return holds(relation.name, chosen[relation.subject], chosen[relation.object], size=scene.size)
