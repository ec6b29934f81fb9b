"""Captions of a scene: one complete caption, which can be learned, and freer ones, which cannot be guessed.

`parsing.py` has the grammar of both.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from vlm_jax.scenes.sampling import one_of
from vlm_jax.scenes.scene import COLOURS, RELATIONS, SHAPES, Scene, SceneObject, clearest_relation, holds

Choice = TypeVar("Choice")

ATTRIBUTES = ("size", "color", "shape")
SIZE_WORDS = {"large": ("large", "big"), "small": ("small", "little")}
RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
ANY_SHAPE = ("shape", "thing", "object")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
OPENINGS = ("there is", "i see", "the picture shows")
OPENINGS_OF_SEVERAL = ("there are", "i see", "the picture shows")


class Mention(NamedTuple):
    """What a phrase says of the object or the objects that it is about."""

    size: str | None = None
    color: str | None = None
    shape: str | None = None
    number: int | None = None
    """None for one object ("a", "the"); else exactly so many objects of the scene are as described."""

    def fits(self, obj: SceneObject) -> bool:
        """Whether the object has every stated attribute."""
        return self.size in (None, obj.size) and self.color in (None, obj.color) and self.shape in (None, obj.shape)

    def only_one(self, scene: Scene) -> bool:
        """Whether exactly one object of the scene has every stated attribute."""
        return sum(map(self.fits, scene.objects)) == 1


def mention(obj: SceneObject, names: Sequence[str] = ATTRIBUTES) -> Mention:
    """An object by some of its attributes."""
    return Mention(**{name: getattr(obj, name) for name in names})


def caption(scene: Scene) -> str:
    """The complete caption, a function of the scene: every object with size, colour and shape, in the scene's order.

    The first of two or more stands in one relation to the second, along the axis on which they are further apart:
    "a large blue square left of a small red circle and a small green star".
    """
    first, *others = ("a " + described(mention(obj)) for obj in scene.objects)
    if not others:
        return first
    return f"{first} {clearest_relation(*scene.objects[:2])} {' and '.join(others)}"


def described(obj: Mention, *, noun: str = "shape", plural: bool = False) -> str:
    """The attributes without an article: `small red circle`, `large shape`; `noun` stands where no shape is stated."""
    last = obj.shape or noun
    return " ".join(word for word in (obj.size, obj.color, plural_of(last) if plural else last) if word)


def plural_of(noun: str) -> str:
    """`circles`, `crosses`."""
    return noun + ("es" if noun.endswith("s") else "s")


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Every choice of at least one name."""
    return [chosen for count in range(1, len(names) + 1) for chosen in itertools.combinations(names, count)]


def shuffled(random: np.random.Generator, objects: Sequence[Choice]) -> list[Choice]:
    """All of them in any order."""
    return [objects[position] for position in random.permutation(len(objects)).tolist()]


def free_captions(scene: Scene, random: np.random.Generator, *, count: int = 4) -> tuple[str, ...]:
    """Different true captions that leave out objects and attributes and use more words than the complete one has.

    What is denied is a colour or a shape, never a pair of them, which would tell what is held out.
    """
    forms = (_objects, _count) if len(scene.objects) == 1 else (_objects, _count, _relation, _relation)
    texts = [caption(scene)]
    while len(texts) <= count:
        text = one_of(random, forms)(scene, random)
        if text not in texts:
            texts.append(text)
    return tuple(texts[1:])


def _opened(words: str, random: np.random.Generator, *, several: bool = False) -> str:
    opening = one_of(random, OPENINGS_OF_SEVERAL if several else OPENINGS)
    return f"{opening} {words}" if random.integers(2) else words


def _objects(scene: Scene, random: np.random.Generator) -> str:
    objects = shuffled(random, scene.objects)[: int(random.integers(1, len(scene.objects) + 1))]
    *most, last = (_freely(obj, scene, random) for obj in objects)
    words = f"{', '.join(most)} {one_of(random, ('and', 'with'))} {last}" if most else last
    return _opened(words, random)


def _count(scene: Scene, random: np.random.Generator) -> str:
    """How many are like one of the objects, and perhaps a colour or a shape that is missing."""
    names = one_of(random, ((), ("size",), ("color",), ("shape",), ("size", "color"), ("color", "shape")))
    phrase = mention(one_of(random, scene.objects), names)
    number, noun = sum(map(phrase.fits, scene.objects)), one_of(random, ANY_SHAPE)
    words = f"{NUMBERS[number]} {described(phrase, noun=noun, plural=number > 1)}"
    if random.integers(2):
        every = [*(Mention(color=color) for color in COLOURS), *(Mention(shape=shape) for shape in SHAPES)]
        missing = [absent for absent in every if not any(map(absent.fits, scene.objects))]
        words += f" and no {described(one_of(random, missing), noun=noun)}"
    return _opened(words, random, several=number > 1)


def _relation(scene: Scene, random: np.random.Generator) -> str:
    """Where an object stands as seen from one or two others, and perhaps one object more."""
    subject, *others = shuffled(random, scene.objects)
    words = _freely(subject, scene, random)
    verb = one_of(random, ("", " is") if " that is " in words else ("", " is", " that is"))
    words += verb
    count = int(random.integers(1, 3))
    for joint, other in zip(("", " and"), others[:count], strict=False):
        relation = one_of(random, [name for name in RELATIONS if holds(name, subject, other, size=scene.size)])
        words += f"{joint} {one_of(random, RELATION_WORDS[relation])} {_freely(other, scene, random)}"
    if others[count:] and random.integers(2):
        words += f" with {_freely(others[count], scene, random)}"
    return words if verb == " is" else _opened(words, random)


def _freely(obj: SceneObject, scene: Scene, random: np.random.Generator) -> str:
    """The object by some of its attributes; "the" only where they fit no other object."""
    phrase = mention(obj, one_of(random, subsets(ATTRIBUTES)))
    noun = phrase.shape or one_of(random, ANY_SHAPE)
    adjectives = [one_of(random, SIZE_WORDS[phrase.size])] if phrase.size else []
    adjectives += [phrase.color] if phrase.color else []
    if adjectives and random.random() < 0.25:
        words = f"{noun} that is {' and '.join(adjectives)}"
    else:
        words = " ".join([*adjectives, noun])
    if phrase.only_one(scene) and random.integers(2):
        return f"the {words}"
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"
