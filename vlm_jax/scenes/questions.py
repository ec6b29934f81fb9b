"""Questions about a scene whose answers are known: counts, colours, relations, and what there is."""

import itertools
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vlm_jax.scenes.language import ATTRIBUTES, Mention, described, mention, shuffled, subsets
from vlm_jax.scenes.sampling import ALL_PAIRS, HELD_OUT_PAIRS, SEEN_PAIRS, Pair, one_of
from vlm_jax.scenes.scene import COLOURS, OPPOSITE, RELATIONS, SHAPES, SIZES, Scene, SceneObject, holds

MAX_PER_KIND = 2  # questions of a kind, at most
EXISTENCE = (("color",), ("shape",), ("color", "shape"), ATTRIBUTES)  # which attributes a question names together


class SceneQuestion(NamedTuple):
    """A question with the answer that is true."""

    kind: str
    """`count`, `colour`, `relation` or `existence`."""
    text: str
    answer: str
    """A number, a colour, or yes or no."""


def generate_questions(scene: Scene, random: np.random.Generator) -> tuple[SceneQuestion, ...]:
    """Two different questions of each kind; fewer about colours and relations where the scene does not have them.

    Of the questions for yes or no, one of a kind has either answer. A pair of colour and shape that is held out
    is in a question only where the scene has such a pair: elsewhere the answer would always be no.
    """
    return (*_counts(scene, random), *_colours(scene, random), *_relations(scene, random), *_existence(scene, random))


def _counts(scene: Scene, random: np.random.Generator) -> list[SceneQuestion]:
    """Half of them about what an object has, half about any size, colour or shape."""
    every = [Mention(size=size) for size in SIZES] + [Mention(color=color) for color in COLOURS]
    every += [Mention(shape=shape) for shape in SHAPES]
    subject = mention(one_of(random, scene.objects), one_of(random, [(), *((name,) for name in ATTRIBUTES)]))
    other = one_of(random, [candidate for candidate in every if candidate != subject])
    return [
        SceneQuestion(
            "count",
            f"how many {described(candidate, plural=True)} are there?",
            str(sum(map(candidate.fits, scene.objects))),
        )
        for candidate in (subject, other)
    ]


def _colours(scene: Scene, random: np.random.Generator) -> list[SceneQuestion]:
    """Of objects that size, shape or both tell from all others."""
    questions = []
    for obj in shuffled(random, scene.objects):
        telling = [mention(obj, names) for names in subsets(("size", "shape"))]
        telling = [candidate for candidate in telling if candidate.only_one(scene)]
        if telling and len(questions) < MAX_PER_KIND:
            questions.append(
                SceneQuestion("colour", f"what colour is the {described(one_of(random, telling))}?", obj.color)
            )
    return questions


def _relations(scene: Scene, random: np.random.Generator) -> list[SceneQuestion]:
    """One relation that clearly holds, and the opposite of one that does."""
    true = [
        (subject, name, other)
        for subject, other in itertools.permutations(scene.objects, 2)
        for name in RELATIONS
        if holds(name, subject, other, size=scene.size)
    ]
    questions = []
    for answer in ("yes", "no") if true else ():
        subject, name, other = one_of(random, true)
        stated = name if answer == "yes" else OPPOSITE[name]
        text = f"is the {_told_apart(subject, scene, random)} {stated} the {_told_apart(other, scene, random)}?"
        questions.append(SceneQuestion("relation", text, answer))
    return questions


def _told_apart(obj: SceneObject, scene: Scene, random: np.random.Generator) -> str:
    ways = [mention(obj, names) for names in subsets(ATTRIBUTES)]
    return described(one_of(random, [way for way in ways if way.only_one(scene)]))


def _existence(scene: Scene, random: np.random.Generator) -> list[SceneQuestion]:
    """What an object is, and what none is; half of the latter are made of what different objects are."""
    questions = [
        SceneQuestion("existence", _is_there(mention(one_of(random, scene.objects), one_of(random, EXISTENCE))), "yes")
    ]
    missing: list[Mention] = []
    while not missing:  # in a scene of six, no shape may be missing
        missing = _missing(scene, one_of(random, EXISTENCE))
    near = [candidate for candidate in missing if _near(candidate, scene)]
    questions.append(
        SceneQuestion("existence", _is_there(one_of(random, near if near and random.integers(2) else missing)), "no")
    )
    return questions


def _is_there(obj: Mention) -> str:
    return f"is there a {described(obj)}?"


def _missing(scene: Scene, names: tuple[str, ...]) -> list[Mention]:
    """Every combination of these attributes that no object of the scene has and that a question may name."""
    held_out = any((obj.color, obj.shape) in HELD_OUT_PAIRS for obj in scene.objects)
    every = _combinations(names, ALL_PAIRS if held_out else SEEN_PAIRS)
    return [candidate for candidate in every if not any(map(candidate.fits, scene.objects))]


@lru_cache
def _combinations(names: tuple[str, ...], pairs: tuple[Pair, ...]) -> tuple[Mention, ...]:
    objects = (SceneObject(shape, color, size, 0, 0) for size in SIZES for color, shape in pairs)
    return tuple(dict.fromkeys(mention(obj, names) for obj in objects))


def _near(described: Mention, scene: Scene) -> bool:
    """Whether objects of the scene have each of the attributes, if not together."""
    values = {None, *(value for obj in scene.objects for value in (obj.size, obj.color, obj.shape))}
    return values.issuperset((described.size, described.color, described.shape))
