"""Drawing: what is in a scene can be read off its pixels, and nothing else is on them."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from tests.scenes.reading import read_off, render_clean
from vlm_jax.scenes.rendering import coverage, render
from vlm_jax.scenes.scene import COLOURS, SHAPES, SIZES, Scene, SceneObject


@pytest.mark.parametrize("paint", [render_clean, render])
def test_a_scene_can_be_read_off_its_pixels(scenes, paint):
    for scene in scenes:
        detected = read_off(paint(scene))
        true = sorted(scene.objects, key=lambda obj: (obj.x, obj.y))
        assert sorted(obj[:3] for obj in detected) == sorted((t.size, t.color, t.shape) for t in true)
        near = scene.size / 64  # a pixel; the tip of a star is thin
        for obj in detected:
            (same,) = [t for t in true if (t.size, t.color, t.shape) == obj[:3]]
            assert abs(obj.x - same.x) <= near and abs(obj.y - same.y) <= near


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", SIZES)
def test_every_kind_of_object_is_told_apart(size, shape, kind):
    for color in COLOURS:
        for place in (size // 2, size // 2 + 1):
            scene = Scene(size, (SceneObject(shape, color, kind, place, size // 2),), (222, 249, 236), noise=place)
            (detected,) = read_off(render(scene))
            assert detected[:3] == (kind, color, shape)


def test_objects_are_whole_and_two_pixels_apart(scenes):
    for scene in scenes:
        masks = [coverage(obj, scene.size) > 0 for obj in scene.objects]
        for obj, mask in zip(scene.objects, masks, strict=True):
            alone = Scene(512, (SceneObject(obj.shape, obj.color, obj.size, 256, 256),))
            expected_area = coverage(alone.objects[0], 512).sum() * (scene.size / 512) ** 2
            assert np.isclose(coverage(obj, scene.size).sum(), expected_area, rtol=0.03)
            assert mask.any()
        for first, second in itertools.combinations(masks, 2):
            near = ndimage.binary_dilation(first, np.ones((3, 3)), iterations=2)
            assert not (near & second).any()
        clean = np.abs(render_clean(scene).astype(int) - scene.background).max(-1) > 0
        assert not (clean & ~np.any(masks, axis=0)).any()


def test_a_shape_covers_its_geometric_area():
    def area(shape):
        return (
            coverage(SceneObject(shape, "red", "large", 256, 256), 512).sum() / 88**2
        )  # half its box is 88 pixels wide

    assert np.isclose(area("circle"), np.pi, rtol=0.005)
    assert np.isclose(area("square"), 4 * 0.88**2, rtol=0.005)
    assert np.isclose(area("triangle"), 2 * 0.87, rtol=0.01)
    assert np.isclose(area("cross"), 8 * 0.34 - 4 * 0.34**2, rtol=0.02)
    # ten triangles from the middle to a point and the next corner
    assert np.isclose(area("star"), 10 * 0.5 * 1.05 * (1.05 * 0.46) * np.sin(np.pi / 5), rtol=0.01)


def test_edges_are_soft_and_the_rest_is_flat():
    obj = SceneObject("circle", "blue", "large", 32, 32)
    covered = coverage(obj, 64)
    assert 30 < ((covered > 0) & (covered < 1)).sum() < 120
    image = render_clean(Scene(64, (obj,), (230, 240, 249)))
    assert (image[covered == 1] == COLOURS["blue"]).all() and (image[covered == 0] == (230, 240, 249)).all()
    half = np.abs(covered - 0.5).argmin()
    wanted = np.array([230, 240, 249]) + covered.flat[half] * (np.array(COLOURS["blue"]) - [230, 240, 249])
    assert np.abs(image.reshape(-1, 3)[half] - wanted).max() <= 0.5


def test_noise_is_mild_and_follows_its_seed():
    objects = (SceneObject("circle", "blue", "small", 32, 32),)
    first, again, second = (Scene(64, objects, noise=seed) for seed in (1, 1, 2))
    assert (render(first) == render(again)).all()
    assert (render(first) != render(second)).mean() > 0.8
    assert (render_clean(first) == render_clean(second)).all()
    noise = render(first).astype(float)[:20] - render_clean(first)[:20]
    assert abs(noise.mean()) < 0.5 and 3.5 < noise.std() < 4.5


def test_a_larger_image_shows_the_same():
    small = Scene(64, (SceneObject("star", "green", "large", 20, 30), SceneObject("cross", "red", "small", 50, 15)))
    large = Scene(128, (SceneObject("star", "green", "large", 40, 60), SceneObject("cross", "red", "small", 100, 30)))
    halved = render_clean(large).reshape(64, 2, 64, 2, 3).mean((1, 3))
    difference = np.abs(halved - render_clean(small))
    assert difference.max() < 32 and difference.mean() < 0.2


def test_colours_are_far_from_each_other_and_from_the_background():
    for first, second in itertools.combinations([*COLOURS.values(), (222, 222, 222)], 2):
        assert np.linalg.norm(np.subtract(first, second)) > 100
