"""Captions held against scenes: true ones pass, and each kind of planted error is found."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_jax.scenes.language import caption, free_captions
from vlm_jax.scenes.parsing import parse_caption
from vlm_jax.scenes.rules import CaptionCheck, check_caption
from vlm_jax.scenes.sampling import ALL_PAIRS, Sampling, sample_scene
from vlm_jax.scenes.scene import COLOURS, OPPOSITE, SHAPES, SIZES, Scene, SceneObject

# A large red circle and a small one, side by side below a small blue star.
SCENE = Scene(
    64,
    (
        SceneObject("circle", "red", "large", 15, 45),
        SceneObject("circle", "red", "small", 50, 45),
        SceneObject("star", "blue", "small", 40, 10),
    ),
)


@pytest.mark.parametrize(
    ("text", "true", "named", "attributes", "hallucinated", "relations", "held"),
    [
        ("a circle", True, 1, 1, 0, 0, 0),
        ("a circle and a circle", True, 2, 2, 0, 0, 0),
        ("a circle and a circle and a circle", False, 2, 3, 1, 0, 0),
        ("a small red circle and a small red circle", False, 1, 6, 1, 0, 0),
        ("a red thing and a large thing", True, 2, 2, 0, 0, 0),
        ("a large thing and a red thing", True, 2, 2, 0, 0, 0),
        ("a thing, a thing and a thing", True, 3, 0, 0, 0, 0),
        ("a green thing", False, 0, 1, 1, 0, 0),
        ("a large star and a small circle", False, 1, 4, 1, 0, 0),
        ("two circles", True, 2, 1, 0, 0, 0),
        ("one circle", False, 1, 1, 0, 0, 0),
        ("three circles", False, 2, 1, 1, 0, 0),
        ("one star and two red things", True, 3, 2, 0, 0, 0),
        ("two small things and a circle", True, 3, 2, 0, 0, 0),
        ("two small things, a circle and a star", False, 3, 3, 1, 0, 0),
        ("no square", True, 0, 1, 0, 0, 0),
        ("no squares", True, 0, 1, 0, 0, 0),
        ("no small red circle", False, 0, 3, 0, 0, 0),
        ("no square and a star", True, 1, 2, 0, 0, 0),
        ("a star above a circle", True, 2, 2, 0, 1, 1),
        ("a circle above a star", False, 2, 2, 0, 1, 0),
        ("a star left of a circle", True, 2, 2, 0, 1, 1),
        ("a star right of a circle", True, 2, 2, 0, 1, 1),
        ("a star left of a circle and right of a circle", True, 3, 3, 0, 2, 2),
        ("a star left of a large circle", False, 2, 3, 0, 1, 0),
        ("a circle left of a circle", True, 2, 2, 0, 1, 1),
        ("a small circle left of a circle", False, 2, 3, 0, 1, 0),
        ("a circle above a circle", False, 2, 2, 0, 1, 0),
        # Each relation is true of some circle, and together they are of none.
        ("a circle left of a star and right of a circle", False, 3, 3, 0, 2, 2),
        # Only the star is above it, and the second thing must be another.
        ("a large circle below a thing and below a thing", False, 3, 2, 0, 2, 2),
        ("a square above a circle", False, 1, 2, 1, 1, 0),
        ("a star above a circle and a square", False, 2, 3, 1, 1, 1),
        ("", False, 0, 0, 0, 0, 0),
        (".", False, 0, 0, 0, 0, 0),
        ("nothing", False, 0, 0, 0, 0, 0),
        ("a circle and a blob", False, 1, 1, 0, 0, 0),
    ],
)
def test_each_figure_of_a_check(text, true, named, attributes, hallucinated, relations, held):
    understood = text not in (".", "nothing") and "blob" not in text
    assert check_caption(text, SCENE) == CaptionCheck(
        true, named / 3, attributes, hallucinated, relations, held, understood
    )


def test_a_relation_needs_its_margin():
    def scene(x):
        return Scene(64, (SceneObject("circle", "red", "small", 20, 15), SceneObject("star", "blue", "small", x, 45)))

    assert check_caption("a circle left of a star", scene(28)).true
    assert not check_caption("a circle left of a star", scene(27)).true
    assert not check_caption("a star right of a circle", scene(27)).true
    assert not check_caption("a star left of a circle", scene(27)).true


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from((64, 128)))
@settings(max_examples=100, deadline=None)
def test_every_caption_of_a_scene_is_true_of_it(seed, most, size):
    random = np.random.default_rng(seed)
    scene = sample_scene(random, Sampling(size=size, most=most, first=ALL_PAIRS, others=ALL_PAIRS))
    count = len(scene.objects)
    assert check_caption(caption(scene), scene) == CaptionCheck(
        True, 1.0, 3 * count, 0, int(count > 1), int(count > 1), True
    )
    for text in free_captions(scene, random):
        check = check_caption(text, scene)
        assert check.true and check.understood and check.hallucinated == 0, text
        assert check.relations == check.relations_true


def by_brute_force(text, scene):
    """Truth from the words of the text alone, for captions without numbers: some things stand in for the phrases."""
    statements = parse_caption(text)

    def stands(name, subject, reference):
        far = {
            "left of": reference.x - subject.x,
            "right of": subject.x - reference.x,
            "above": reference.y - subject.y,
            "below": subject.y - reference.y,
        }
        return far[name] * 64 >= 8 * scene.size

    for chosen in itertools.permutations(scene.objects, len(statements.mentions)):
        fits = all(
            value in (None, getattr(obj, name))
            for phrase, obj in zip(statements.mentions, chosen, strict=True)
            for name, value in phrase._asdict().items()
            if name != "number"
        )
        if fits and all(
            stands(name, chosen[subject], chosen[reference]) for subject, name, reference in statements.relations
        ):
            return True
    return False


def test_captions_of_other_scenes_are_true_only_where_they_fit(scenes):
    """Truth agrees with trying everything out; both true and false ones come up."""
    random, seen = np.random.default_rng(0), []
    for scene, reference in itertools.pairwise(scenes[::2]):
        for text in free_captions(reference, random):
            if not parse_caption(text).counts:
                seen.append(by_brute_force(text, scene))
                assert check_caption(text, scene).true == seen[-1], text
    assert 0.05 < np.mean(seen) < 0.5


def planted(text, scene, random):
    """The complete caption with one error of each kind."""
    which = int(random.integers(len(scene.objects)))
    phrases = re.findall(r"a \w+ \w+ \w+", text)
    size, color, shape = phrases[which].split()[1:]
    for old, choices in ((size, SIZES), (color, COLOURS), (shape, SHAPES)):
        for new in choices:
            if new != old:
                changed = phrases[which].replace(f" {old}", f" {new}")
                parts = text.split(phrases[which])
                yield "attribute", parts[0] + changed + parts[1]
    for relation, opposite in OPPOSITE.items():
        if relation in text:
            yield "relation", text.replace(relation, opposite)
            subject, reference = phrases[:2]
            yield "relation", text.replace(f"{subject} {relation} {reference}", f"{reference} {relation} {subject}")
    yield "extra", f"{text} and {phrases[which]}"
    for new in ("a large green star", "a small black cross", "a thing"):
        yield "extra", f"{text} and {new}"
    if len(phrases) > 2:
        yield "missing", text.removesuffix(f" and {phrases[-1]}")
    for number, word in enumerate(("no", "one", "two", "three", "four", "five", "six")):
        if number != len(scene.objects):
            yield "count", f"{word} {'thing' if number < 2 else 'things'}"


def test_planted_errors_are_found(scenes):
    random, noticed = np.random.default_rng(0), dict.fromkeys(("attribute", "relation", "extra", "missing", "count"), 0)
    for scene in scenes[::5]:
        text, count = caption(scene), len(scene.objects)
        for kind, wrong in planted(text, scene, random):
            check = check_caption(wrong, scene)
            assert check.understood, wrong
            noticed[kind] += 1
            if kind == "missing":
                assert check.true and check.objects_named == (count - 1) / count, wrong
                continue
            assert not check.true, (wrong, text)
            if kind == "attribute":
                assert check.hallucinated == 1 and check.objects_named == (count - 1) / count, wrong
            elif kind == "relation":
                assert (check.hallucinated, check.relations, check.relations_true) == (0, 1, 0), wrong
            elif kind == "extra":
                assert check.hallucinated == 1 and check.objects_named == 1, wrong
    assert min(noticed.values()) > 20, noticed
