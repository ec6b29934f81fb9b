"""Questions about a scene whose answers are known: counts, colours, relations, and what there is."""

import itertools
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vlm_jax.scenes.language import ATTRIBUTES, Mention, described, mention, shuffled, subsets
from vlm_jax.scenes.sampling import ALL_PAIRS, HELD_OUT_PAIRS, SEEN_PAIRS, Pair, one_of
from vlm_jax.scenes.scene import (
    COLOURS,
    OPPOSITE,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    holds,
)

EACH = 2  # questions of a kind, at most
EXISTENCE = (("color",), ("shape",), ("color", "shape"), ATTRIBUTES)  # which attributes are asked for together


class Asked(NamedTuple):
    """A question with the answer that is true."""

    kind: str
    """`count`, `colour`, `relation` or `existence`."""
    text: str
    answer: str
    """A number, a colour, or yes or no."""


def ask(scene: Scene, random: np.random.Generator) -> tuple[Asked, ...]:
    """Two different questions of each kind; fewer about colours and relations where the scene does not have them.

    Of the questions for yes or no, one of a kind has either answer. A pair of colour and shape that is held out
    is asked for only in scenes that have such a pair: elsewhere the answer would always be no.
    """
    return (*_counts(scene, random), *_colours(scene, random), *_relations(scene, random), *_existence(scene, random))


def _counts(scene: Scene, random: np.random.Generator) -> list[Asked]:
    """Half of them about what a thing has, half about any size, colour or shape."""
    every = [Mention(size=size) for size in SIZES] + [Mention(color=color) for color in COLOURS]
    every += [Mention(shape=shape) for shape in SHAPES]
    one = mention(one_of(random, scene.things), one_of(random, [(), *((name,) for name in ATTRIBUTES)]))
    other = one_of(random, [each for each in every if each != one])
    return [
        Asked("count", f"how many {described(each, plural=True)} are there?", str(sum(map(each.fits, scene.things))))
        for each in (one, other)
    ]


def _colours(scene: Scene, random: np.random.Generator) -> list[Asked]:
    """Of things that size, shape or both tell from all others."""
    asked = []
    for thing in shuffled(random, scene.things):
        telling = [mention(thing, names) for names in subsets(("size", "shape"))]
        telling = [each for each in telling if each.only_one(scene)]
        if telling and len(asked) < EACH:
            asked.append(Asked("colour", f"what colour is the {described(one_of(random, telling))}?", thing.color))
    return asked


def _relations(scene: Scene, random: np.random.Generator) -> list[Asked]:
    """One relation that clearly holds, and the opposite of one that does."""
    true = [
        (one, name, other)
        for one, other in itertools.permutations(scene.things, 2)
        for name in RELATIONS
        if holds(name, one, other, size=scene.size)
    ]
    asked = []
    for answer in ("yes", "no") if true else ():
        one, name, other = one_of(random, true)
        asked_for = name if answer == "yes" else OPPOSITE[name]
        text = f"is the {_told_apart(one, scene, random)} {asked_for} the {_told_apart(other, scene, random)}?"
        asked.append(Asked("relation", text, answer))
    return asked


def _told_apart(thing: Thing, scene: Scene, random: np.random.Generator) -> str:
    ways = [mention(thing, names) for names in subsets(ATTRIBUTES)]
    return described(one_of(random, [way for way in ways if way.only_one(scene)]))


def _existence(scene: Scene, random: np.random.Generator) -> list[Asked]:
    """What a thing is, and what none is; half of the latter are made of what different things are."""
    asked = [Asked("existence", _is_there(mention(one_of(random, scene.things), one_of(random, EXISTENCE))), "yes")]
    missing: list[Mention] = []
    while not missing:  # in a scene of six, no shape may be missing
        missing = _missing(scene, one_of(random, EXISTENCE))
    near = [each for each in missing if _near(each, scene)]
    asked.append(Asked("existence", _is_there(one_of(random, near if near and random.integers(2) else missing)), "no"))
    return asked


def _is_there(thing: Mention) -> str:
    return f"is there a {described(thing)}?"


def _missing(scene: Scene, names: tuple[str, ...]) -> list[Mention]:
    """Every combination of these attributes that no thing of the scene has and that may be asked for."""
    held_out = any((thing.color, thing.shape) in HELD_OUT_PAIRS for thing in scene.things)
    every = _combinations(names, ALL_PAIRS if held_out else SEEN_PAIRS)
    return [each for each in every if not any(map(each.fits, scene.things))]


@lru_cache
def _combinations(names: tuple[str, ...], pairs: tuple[Pair, ...]) -> tuple[Mention, ...]:
    things = (Thing(shape, color, size, 0, 0) for size in SIZES for color, shape in pairs)
    return tuple(dict.fromkeys(mention(thing, names) for thing in things))


def _near(described: Mention, scene: Scene) -> bool:
    """Whether things of the scene have each of the attributes, if not together."""
    values = {None, *(value for thing in scene.things for value in (thing.size, thing.color, thing.shape))}
    return values.issuperset((described.size, described.color, described.shape))
