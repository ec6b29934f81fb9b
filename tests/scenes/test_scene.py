"""Scenes: what one may be, how they are sampled, and JSON that is refused."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_jax.errors import InputError
from vlm_jax.scenes.sampling import ALL_PAIRS, HELD_OUT_PAIRS, SEEN_PAIRS, Sampling, sample_scene
from vlm_jax.scenes.scene import (
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    clearest_relation,
    from_json,
    holds,
    to_json,
)

ONE = SceneObject("circle", "red", "small", 20, 30)
OTHER = SceneObject("square", "blue", "large", 44, 40)


def test_sampling_is_uniform():
    random = np.random.default_rng(0)
    scenes = [sample_scene(random, Sampling(first=ALL_PAIRS, others=ALL_PAIRS)) for _ in range(1_200)]
    objects = [obj for scene in scenes for obj in scene.objects]
    for values, choices in (
        ([len(scene.objects) for scene in scenes], range(1, 5)),
        ([obj.size for obj in objects], SIZES),
        ([obj.color for obj in objects], COLOURS),
        ([obj.shape for obj in objects], SHAPES),
        ([clearest_relation(*scene.objects[:2]) for scene in scenes if len(scene.objects) > 1], RELATIONS),
    ):
        counts = Counter(values)
        assert set(counts) == set(choices)
        assert max(counts.values()) < 1.25 * min(counts.values()), counts
    four = [sample_scene(random, Sampling(fewest=4)) for _ in range(500)]
    crowded = sum(all(obj.size == "large" for obj in scene.objects) for scene in four)
    assert 0.045 < crowded / len(four) < 0.085  # a sixteenth: four large objects are not drawn again for want of room


def test_the_first_relation_is_no_toss_up(scenes):
    for scene in scenes:
        for subject, reference in itertools.combinations(scene.objects, 2):
            assert holds(clearest_relation(subject, reference), subject, reference, size=scene.size)
        if len(scene.objects) > 1:
            subject, reference = scene.objects[:2]
            across, down = abs(subject.x - reference.x), abs(subject.y - reference.y)
            assert abs(across - down) >= 4 * scene.size // 64


def test_a_relation_needs_eight_pixels():
    for relation, (x, y) in {"left of": (8, 0), "right of": (-8, 0), "above": (0, 8), "below": (0, -8)}.items():
        for far, true in ((1, True), (0.875, False), (-1, False)):
            reference = SceneObject("circle", "red", "small", 30 + int(far * x), 30 + int(far * y))
            assert holds(relation, SceneObject("star", "red", "small", 30, 30), reference, size=64) == true
            assert not holds(relation, SceneObject("star", "red", "small", 30, 30), reference, size=128)


def test_held_out_pairs_leave_every_colour_and_shape_with_others():
    assert 4 <= len(set(HELD_OUT_PAIRS)) == len(HELD_OUT_PAIRS) <= 6
    assert len({color for color, _ in HELD_OUT_PAIRS}) == len({shape for _, shape in HELD_OUT_PAIRS}) == 5
    assert len(SEEN_PAIRS) == len(COLOURS) * len(SHAPES) - 5 and not set(SEEN_PAIRS) & set(HELD_OUT_PAIRS)
    random = np.random.default_rng(0)
    usual = [sample_scene(random, Sampling(most=6)) for _ in range(300)]
    assert {(obj.color, obj.shape) for scene in usual for obj in scene.objects} == set(SEEN_PAIRS)
    sampling = Sampling(first=HELD_OUT_PAIRS, others=ALL_PAIRS)
    for _ in range(100):
        objects = sample_scene(random, sampling).objects
        assert any((obj.color, obj.shape) in HELD_OUT_PAIRS for obj in objects)


@given(st.integers(0, 2**32 - 1), st.sampled_from((64, 128, 192)), st.integers(1, 6), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_json_gives_back_the_scene(seed, size, fewest, more):
    sampling = Sampling(size=size, fewest=fewest, most=min(6, fewest + more))
    scene = sample_scene(np.random.default_rng(seed), sampling)
    assert scene == sample_scene(np.random.default_rng(seed), sampling)
    assert sampling.fewest <= len(scene.objects) <= sampling.most and scene.size == size
    text = to_json(scene)
    assert from_json(text) == scene and "\n" not in text
    backwards = json.loads(text)
    backwards["objects"].reverse()
    assert from_json(json.dumps(backwards)) == scene


def changed(**changes):
    return json.dumps(json.loads(to_json(Scene(64, (ONE, OTHER)))) | changes)


def with_object(**changes):
    values = json.loads(to_json(Scene(64, (ONE, OTHER))))
    values["objects"][1] |= changes  # the small red circle
    return json.dumps(values)


def without(name, *, of_object=False):
    values = json.loads(to_json(Scene(64, (ONE, OTHER))))
    del (values["objects"][0] if of_object else values)[name]
    return json.dumps(values)


BAD = {
    "": "JSON",
    "{": "JSON",
    "[" * 100_000: "JSON",
    "1" * 5_000: "1111",
    "[]": "[]",
    "null": "None",
    changed(sise=64): "sise 64",
    without("objects"): "objects {",
    without("color", of_object=True): "objects.0.color",
    changed(size="64"): "size '64'",
    changed(size=64.0): "size 64.0",
    changed(size=65): "multiple of 64 up to 512 pixels, not 65",
    changed(size=0): "multiple of 64",
    changed(size=10**30): "multiple of 64",
    changed(noise=True): "noise True",
    changed(noise=-1): "seed of the noise must be at least 0",
    changed(noise=2**32): "below 4294967296",
    changed(background=[240, 240]): "background",
    changed(background=240): "background 240",
    changed(background=[240, 240, "x\ny"]): "background.2 'x\\ny'",
    changed(background=[240, 240, 0]): "levels from 222 to 249",
    changed(objects={}): "objects {}",
    changed(objects=[]): "1 to 6 objects, not 0",
    changed(objects=["circle"]): "objects.0 'circle'",
    with_object(colour="red"): "objects.1.colour 'red'",
    with_object(color="rad"): "no color 'rad'; choose one of: red,",
    with_object(shape="circles"): "no shape 'circles'; choose one of: circle, ",
    with_object(size="tiny\nlittle"): "choose one of: large, small",
    with_object(shape=1): "objects.1.shape 1",
    with_object(x=3.5): "objects.1.x 3.5",
    with_object(x=float("nan")): "objects.1.x nan",
    with_object(x=5): "does not lie inside an image of 64 pixels",
    with_object(y=59): "does not lie inside",
    with_object(x=44, y=22): "are less than 2 pixels apart",
    with_object(x=20, y=20, shape="square", color="blue", size="large"): "only one large blue square",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:60])
def test_other_json_is_refused_in_one_line(text):
    with pytest.raises(InputError) as error:
        from_json(text)
    assert BAD[text] in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250
