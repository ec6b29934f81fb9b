"""What is true of a scene: a caption held against it, statement by statement.

A caption is held against the scene that a picture was drawn from, so nothing has to be recognised.
"""

import itertools
from typing import NamedTuple

from vlm_jax.scenes.language import ATTRIBUTES, Mention
from vlm_jax.scenes.parsing import Relation, Statements, parse_caption
from vlm_jax.scenes.scene import Scene, Thing, holds


class CaptionCheck(NamedTuple):
    """How a caption fares. Every phrase is taken to name another thing, one with a number so many things."""

    true: bool
    """Whether the scene has different things for all phrases, such that every relation holds and every number is exact.

    A caption is not true if it says nothing or if a part of it is not understood.
    """
    objects_named: float
    """The share of the scene's things that have a phrase of their own which fits: 1 where nothing is left out."""
    attributes: int
    """Words for a size, a colour or a shape, true or not."""
    hallucinated: int
    """Things that are named beyond those, however phrases and things are matched one to one."""
    relations: int
    """Relations that are stated."""
    relations_true: int
    """Those for which two different things fit the two phrases and stand so, each relation taken alone."""
    understood: bool
    """Whether the whole text fits the grammar."""


def check_caption(text: str, scene: Scene) -> CaptionCheck:
    """Hold a caption, complete or free, against a scene."""
    said = parse_caption(text)
    named = [said.mentions[position] for position in _named(said)]
    fitting = _matched(named, scene.things)
    return CaptionCheck(
        true=bool(said.mentions) and not said.unknown and fitting == len(named) and _true(said, scene),
        objects_named=fitting / max(1, len(scene.things)),  # on a picture there may be nothing to see
        attributes=sum(getattr(mention, name) is not None for mention in said.mentions for name in ATTRIBUTES),
        hallucinated=len(named) - fitting,
        relations=len(said.relations),
        relations_true=sum(_possible(relation, said, scene) for relation in said.relations),
        understood=not said.unknown,
    )


def _named(said: Statements) -> list[int]:
    """For every thing that is named, the position of the mention that names it."""
    return [
        position
        for position, mention in enumerate(said.mentions)
        for _ in range(1 if mention.number is None else mention.number)
    ]


def _matched(mentions: list[Mention], things: tuple[Thing, ...]) -> int:
    """How many mentions can have a fitting thing of their own at once (Kuhn's augmenting paths)."""
    holder: dict[int, int] = {}  # which mention has the thing at a position

    def give(mention: int, tried: set[int]) -> bool:
        for position, thing in enumerate(things):
            if position not in tried and mentions[mention].fits(thing):
                tried.add(position)
                if position not in holder or give(holder[position], tried):
                    holder[position] = mention
                    return True
        return False

    return sum(give(mention, set()) for mention in range(len(mentions)))


def _possible(relation: Relation, said: Statements, scene: Scene) -> bool:
    one, other = said.mentions[relation.subject], said.mentions[relation.object]
    return any(
        one.fits(this) and other.fits(that) and holds(relation.name, this, that, size=scene.size)
        for this in scene.things
        for that in scene.things
    )


def _true(said: Statements, scene: Scene) -> bool:
    """Whether numbers are exact, and some choice of different things fits all phrases and relations at once."""
    if any(sum(map(count.fits, scene.things)) != count.number for count in said.counts):
        return False
    named = _named(said)
    return any(
        all(said.mentions[position].fits(thing) for position, thing in zip(named, chosen, strict=True))
        and all(_stands(relation, dict(zip(named, chosen, strict=True)), scene) for relation in said.relations)
        for chosen in itertools.permutations(scene.things, len(named))
    )


def _stands(relation: Relation, chosen: dict[int, Thing], scene: Scene) -> bool:
    return holds(relation.name, chosen[relation.subject], chosen[relation.object], size=scene.size)
