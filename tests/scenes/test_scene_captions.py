"""Captions: what they say is what the scene has, and parsing understands all of it and no more."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenes.reading import read_off
from vlm_jax.scenes.language import Mention, caption, free_captions, mention
from vlm_jax.scenes.parsing import Relation, Statements, parse_caption
from vlm_jax.scenes.rendering import render
from vlm_jax.scenes.sampling import ALL_PAIRS, HELD_OUT_PAIRS, Sampling, sample_scene
from vlm_jax.scenes.scene import COLOURS, RELATIONS, SHAPES, SIZES, Scene, SceneObject

ADJECTIVE = rf"(?:large|big|small|little|{'|'.join(COLOURS)})"
SHAPE = rf"(?:{'|'.join(SHAPES)})"
ATTRIBUTE = re.compile(rf"{ADJECTIVE}|{SHAPE}(?:e?s)?")
THE = re.compile(
    rf"the ((?:{ADJECTIVE} )*(?:{SHAPE}|thing|object|shape)(?: that is {ADJECTIVE}(?: and {ADJECTIVE})?)?)"
)
THREE = Scene(
    64,
    (
        SceneObject("circle", "red", "small", 10, 12),
        SceneObject("square", "blue", "large", 45, 20),
        SceneObject("star", "red", "small", 20, 50),
    ),
)


def test_the_complete_caption():
    assert caption(THREE) == "a large blue square right of a small red circle and a small red star"
    assert caption(Scene(64, THREE.objects[1:2])) == "a small red circle"
    assert caption(Scene(64, THREE.objects[1:])) == "a small red circle above a small red star"
    assert caption(Scene(64, THREE.objects[::2])) == "a large blue square above a small red star"


def test_the_complete_caption_is_read_off_the_pixels(scenes):
    """Written again from what the pixels show, word by word."""
    for scene in scenes:
        detected = read_off(render(scene))
        detected.sort(key=lambda t: (t.size == "small", list(COLOURS).index(t.color), SHAPES.index(t.shape)))
        words = [f"a {obj.size} {obj.color} {obj.shape}" for obj in detected]
        if len(detected) > 1:
            across, down = detected[1].x - detected[0].x, detected[1].y - detected[0].y
            sideways = ("left of" if across > 0 else "right of") if abs(across) >= abs(down) else None
            words[:2] = [f"{words[0]} {sideways or ('above' if down > 0 else 'below')} {words[1]}"]
        assert caption(scene) == " and ".join(words)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_parsing_the_complete_caption_recovers_all_of_it(seed, most):
    scene = sample_scene(np.random.default_rng(seed), Sampling(most=most, first=ALL_PAIRS, others=ALL_PAIRS))
    statements = parse_caption(caption(scene))
    assert statements.mentions == tuple(mention(obj) for obj in scene.objects)
    assert statements.unknown == statements.counts == ()
    if len(scene.objects) == 1:
        assert statements.relations == ()
    else:
        ((subject, name, object_),) = statements.relations
        assert (subject, object_) == (0, 1)
        across, down = RELATIONS[name]
        subject, reference = scene.objects[:2]
        assert across * (subject.x - reference.x) + down * (subject.y - reference.y) == max(
            abs(subject.x - reference.x), abs(subject.y - reference.y)
        )


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_freer_captions_are_four_different_ones_that_are_understood(seed, most):
    random = np.random.default_rng(seed)
    scene = sample_scene(random, Sampling(most=most))
    texts = free_captions(scene, np.random.default_rng(seed))
    assert texts == free_captions(scene, np.random.default_rng(seed))
    assert len({*texts, caption(scene)}) == 5
    for text in texts:
        statements = parse_caption(text)
        assert statements.mentions and not statements.unknown, text
        stated = sum(bool(ATTRIBUTE.fullmatch(word)) for word in re.findall(r"\w+", text))
        assert stated == sum(value is not None for phrase in statements.mentions for value in phrase[:3]), text


def test_freer_captions_vary_and_tell_nothing_of_held_out_pairs(scenes):
    random = np.random.default_rng(0)
    words, forms = Counter(), Counter()
    for scene in scenes:
        pairs = {(obj.color, obj.shape) for obj in scene.objects}
        for text in free_captions(scene, random):
            statements = parse_caption(text)
            words.update(re.findall(r"\w+", text))
            forms[len(statements.mentions), len(statements.relations), len(statements.counts)] += 1
            for phrase in statements.mentions:
                if (phrase.color, phrase.shape) in HELD_OUT_PAIRS:
                    assert (phrase.color, phrase.shape) in pairs, text
            for words_of_one in THE.findall(text):
                assert parse_caption(f"a {words_of_one}").mentions[0].only_one(scene), text
    assert {"big", "large", "little", "small", "over", "above", "under", "below", "left", "right"} <= set(words)
    assert {"no", "one", "two", "three", "the", "an", "that", "is", "with", "shows", "see", "are"} <= set(words)
    assert len(forms) > 8 and {(1, 0, 0), (2, 1, 0), (3, 2, 0), (1, 0, 1), (2, 0, 2)} <= set(forms)


def red(shape):
    return Mention(color="red", shape=shape)


UNDERSTOOD = {
    "a circle": Statements((Mention(shape="circle"),)),
    "An object.": Statements((Mention(),)),
    "there is a big red thing": Statements((Mention("large", "red"),)),
    "THE CIRCLE THAT IS LITTLE AND RED": Statements((Mention("small", "red", "circle"),)),
    "the circle is red": Statements((red("circle"),)),
    "a red circle and a red star, with a red cross": Statements((red("circle"), red("star"), red("cross"))),
    "a red circle left of a red star": Statements((red("circle"), red("star")), (Relation(0, "left of", 1),)),
    "a red star is to the right of the red cross": Statements(
        (red("star"), red("cross")), (Relation(0, "right of", 1),)
    ),
    "a circle that is red that is over a red star and under a red cross and a red square": Statements(
        (red("circle"), red("star"), red("cross"), red("square")), (Relation(0, "above", 1), Relation(0, "below", 2))
    ),
    "a red star, a red circle left of a red cross. a red square above a red triangle": Statements(
        (red("star"), red("circle"), red("cross"), red("square"), red("triangle")),
        (Relation(1, "left of", 2), Relation(3, "above", 4)),
    ),
    "there are two red crosses and no small thing": Statements(
        (Mention(None, "red", "cross", 2), Mention("small", number=0))
    ),
    "one object": Statements((Mention(number=1),)),
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_what_is_understood(text):
    assert parse_caption(text) == UNDERSTOOD[text]
    assert parse_caption(text.upper().replace(",", " , ")) == UNDERSTOOD[text]


@pytest.mark.parametrize(
    ("text", "unknown", "mentions"),
    [
        ("a rad circle", ("a rad circle",), 0),
        ("circle", ("circle",), 0),
        ("a circles", ("a circles",), 0),
        ("two circle and a star", ("two circle",), 1),
        ("one circles", ("one circles",), 0),
        ("a red red circle", ("a red red circle",), 0),
        ("a red circle that is blue", ("a red circle that is blue",), 0),
        ("a circle that is red and blue", ("a circle that is red", "blue"), 0),
        ("a circle that is red and round", ("round",), 1),
        ("a red circle left of", ("a red circle left of",), 0),
        ("a red circle left of left of a star", ("a red circle left of left of a star",), 0),
        ("a red circle left a star", ("a red circle left a star",), 0),
        ("a red circle above a star above a cross", ("a red circle above a star above a cross",), 0),
        ("two circles left of a star", ("two circles left of a star",), 0),
        ("a circle a star", ("a circle a star",), 0),
        ("a red circle and", ("and",), 1),
        ("and a red circle", ("and a red circle",), 0),
        ("a red circle ! and a star", ("a red circle !",), 1),
        ("a redcircle and a star", ("a redcircle",), 1),
        ("a star and a circle-like thing", ("a circle - like thing",), 1),
        ("seven circles", ("seven circles",), 0),
        ("there is", ("there is",), 0),
        ("a small", ("a small",), 0),
        ("красный круг", ("красный круг",), 0),
        ("left of a star and a circle", ("left of a star",), 1),
    ],
)
def test_what_is_not_understood_is_reported(text, unknown, mentions):
    statements = parse_caption(text)
    assert statements.unknown == unknown and len(statements.mentions) == mentions


WORDS = sorted({*COLOURS, *SHAPES, *SIZES, "big", "thing", "stars", "a", "the", "is", "that", "and", ",", ".", "with"})
WORDS += ["left", "of", "left of", "above", "to", "no", "two", "there is", "i see", "ten", "\n", "?"]


@given(st.lists(st.sampled_from(WORDS), max_size=14))
@settings(max_examples=200, deadline=None)
def test_any_words_are_taken_apart(words):
    """Positions are of mentions, and every word that states an attribute is stated or not understood."""
    statements = parse_caption(" ".join(words))
    for subject, name, object_ in statements.relations:
        assert name in RELATIONS and 0 <= subject < object_ < len(statements.mentions)
    given_words = Counter(" ".join(words).split())
    left = Counter(itertools.chain(*(text.split() for text in statements.unknown)))
    for color in COLOURS:
        assert given_words[color] == left[color] + sum(phrase.color == color for phrase in statements.mentions)


@given(st.text(max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_text_is_taken(text):
    statements = parse_caption(text)
    assert not statements.mentions or re.search(r"[a-z]", text.lower())
