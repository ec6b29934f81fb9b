"""Drawing: what is in a scene can be read off its pixels, and nothing else is on them."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from tests.scenes.reading import read_off
from vlm_jax.scenes.drawing import coverage, draw, draw_clean
from vlm_jax.scenes.scene import COLOURS, SHAPES, SIZES, Scene, Thing


@pytest.mark.parametrize("paint", [draw_clean, draw])
def test_a_scene_can_be_read_off_its_pixels(scenes, paint):
    for scene in scenes:
        seen = read_off(paint(scene))
        true = sorted(scene.things, key=lambda thing: (thing.x, thing.y))
        assert sorted(thing[:3] for thing in seen) == sorted((t.size, t.color, t.shape) for t in true)
        near = scene.size / 64  # a pixel; the tip of a star is thin
        for thing in seen:
            (same,) = [t for t in true if (t.size, t.color, t.shape) == thing[:3]]
            assert abs(thing.x - same.x) <= near and abs(thing.y - same.y) <= near


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", SIZES)
def test_every_kind_of_thing_is_told_apart(size, shape, kind):
    for color in COLOURS:
        for place in (size // 2, size // 2 + 1):
            scene = Scene(size, (Thing(shape, color, kind, place, size // 2),), (222, 249, 236), noise=place)
            (seen,) = read_off(draw(scene))
            assert seen[:3] == (kind, color, shape)


def test_things_are_whole_and_two_pixels_apart(scenes):
    for scene in scenes:
        masks = [coverage(thing, scene.size) > 0 for thing in scene.things]
        for thing, mask in zip(scene.things, masks, strict=True):
            alone = Scene(512, (Thing(thing.shape, thing.color, thing.size, 256, 256),))
            whole = coverage(alone.things[0], 512).sum() * (scene.size / 512) ** 2
            assert np.isclose(coverage(thing, scene.size).sum(), whole, rtol=0.03)
            assert mask.any()
        for one, other in itertools.combinations(masks, 2):
            near = ndimage.binary_dilation(one, np.ones((3, 3)), iterations=2)
            assert not (near & other).any()
        clean = np.abs(draw_clean(scene).astype(int) - scene.background).max(-1) > 0
        assert not (clean & ~np.any(masks, axis=0)).any()


def test_a_shape_covers_what_geometry_says():
    def area(shape):
        return coverage(Thing(shape, "red", "large", 256, 256), 512).sum() / 88**2  # half its box is 88 pixels wide

    assert np.isclose(area("circle"), np.pi, rtol=0.005)
    assert np.isclose(area("square"), 4 * 0.88**2, rtol=0.005)
    assert np.isclose(area("triangle"), 2 * 0.87, rtol=0.01)
    assert np.isclose(area("cross"), 8 * 0.34 - 4 * 0.34**2, rtol=0.02)
    # ten triangles from the middle to a point and the next corner
    assert np.isclose(area("star"), 10 * 0.5 * 1.05 * (1.05 * 0.46) * np.sin(np.pi / 5), rtol=0.01)


def test_edges_are_soft_and_the_rest_is_flat():
    thing = Thing("circle", "blue", "large", 32, 32)
    covered = coverage(thing, 64)
    assert 30 < ((covered > 0) & (covered < 1)).sum() < 120
    picture = draw_clean(Scene(64, (thing,), (230, 240, 249)))
    assert (picture[covered == 1] == COLOURS["blue"]).all() and (picture[covered == 0] == (230, 240, 249)).all()
    half = np.abs(covered - 0.5).argmin()
    wanted = np.array([230, 240, 249]) + covered.flat[half] * (np.array(COLOURS["blue"]) - [230, 240, 249])
    assert np.abs(picture.reshape(-1, 3)[half] - wanted).max() <= 0.5


def test_noise_is_mild_and_follows_its_seed():
    things = (Thing("circle", "blue", "small", 32, 32),)
    one, again, other = (Scene(64, things, noise=seed) for seed in (1, 1, 2))
    assert (draw(one) == draw(again)).all()
    assert (draw(one) != draw(other)).mean() > 0.8
    assert (draw_clean(one) == draw_clean(other)).all()
    noise = draw(one).astype(float)[:20] - draw_clean(one)[:20]
    assert abs(noise.mean()) < 0.5 and 3.5 < noise.std() < 4.5


def test_a_larger_picture_shows_the_same():
    small = Scene(64, (Thing("star", "green", "large", 20, 30), Thing("cross", "red", "small", 50, 15)))
    large = Scene(128, (Thing("star", "green", "large", 40, 60), Thing("cross", "red", "small", 100, 30)))
    halved = draw_clean(large).reshape(64, 2, 64, 2, 3).mean((1, 3))
    apart = np.abs(halved - draw_clean(small))
    assert apart.max() < 32 and apart.mean() < 0.2


def test_colours_are_far_from_each_other_and_from_the_background():
    for one, other in itertools.combinations([*COLOURS.values(), (222, 222, 222)], 2):
        assert np.linalg.norm(np.subtract(one, other)) > 100
