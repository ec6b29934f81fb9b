"""Images read back: what was drawn is found whatever a decoder does to it, and each planted error is noticed."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from tests.scenes.reading import render_clean
from vlm_jax.errors import InputError
from vlm_jax.scenes.detector import DetectedScene, detect_scene
from vlm_jax.scenes.image_check import ImageCheck, check_image
from vlm_jax.scenes.language import caption, free_captions
from vlm_jax.scenes.rendering import render
from vlm_jax.scenes.rules import check_caption
from vlm_jax.scenes.sampling import ALL_PAIRS, HELD_OUT_PAIRS, Sampling, sample_scene
from vlm_jax.scenes.scene import COLOURS, SHAPES, SIZES, Scene, SceneObject

RIGHT = ImageCheck(objects=1, objects_and_sizes=1, count=True, relation=True, all=True)
CIRCLE = SceneObject("circle", "red", "large", 15, 45)
STAR = SceneObject("star", "blue", "small", 40, 10)
CROSS = SceneObject("cross", "green", "small", 50, 45)
SCENE = Scene(64, (CIRCLE, STAR, CROSS))


def blurred(image, random):
    image = ndimage.gaussian_filter(image.astype(float), (0.7, 0.7, 0))
    return np.clip(np.round(image + random.normal(0, 4, image.shape)), 0, 255).astype(np.uint8)


def compressed(image, random):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=40)  # half the resolution of colour, as is JPEG's default
    return np.array(Image.open(file))


def halved(image, random):
    side = len(image)
    return np.array(Image.fromarray(image).resize((side // 2, side // 2), Image.BOX).resize((side, side)))


def miscoloured(image, random):
    wrong = image * random.uniform(0.9, 1.08, 3) + random.normal(0, 8, 3)
    return blurred(np.clip(wrong, 0, 255), random)


def place_in(size, objects):
    """Objects of an image of 64 pixels in one of `size`."""
    return tuple(dataclasses.replace(obj, x=obj.x * size // 64, y=obj.y * size // 64) for obj in objects)


def test_rendered_scenes_are_detected(scenes):
    random = np.random.default_rng(0)
    held_out = Sampling(first=HELD_OUT_PAIRS, others=ALL_PAIRS)
    for scene in [*scenes, *(sample_scene(random, held_out) for _ in range(50))]:
        detected = detect_scene(render(scene))
        assert (detected.objects, detected.unclear, detected.size) == (scene.objects, 0, scene.size)
        assert np.abs(np.subtract(detected.background, scene.background)).max() <= 1
        assert check_image(detected, scene) == RIGHT._replace(relation=True if len(scene.objects) > 1 else None)


@pytest.mark.parametrize(
    ("degrade", "least"), [(blurred, 0.995), (compressed, 0.99), (halved, 0.995), (miscoloured, 0.995)]
)
def test_degraded_scenes_are_detected(scenes, degrade, least):
    random = np.random.default_rng(0)
    detected = [detect_scene(degrade(render(scene), random)) for scene in scenes]
    assert np.mean([result.objects == scene.objects for result, scene in zip(detected, scenes, strict=True)]) >= least


@pytest.mark.parametrize("size", [64, 128, 192])
@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_object_is_read_back_also_in_corners(size, shape, kind):
    reach = SIZES[kind] * size // 64
    for color, x in itertools.product(COLOURS, (reach, size - reach, size // 2 + 1)):
        obj = SceneObject(shape, color, kind, x, x)
        assert detect_scene(render(Scene(size, (obj,), (222, 249, 236), noise=x))).objects == (obj,)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_strong_blur_makes_no_other_object(shape):
    """Of a small star, hardly a pixel is not mixed with the background."""
    for kind, color in itertools.product(SIZES, COLOURS):
        obj = SceneObject(shape, color, kind, 31, 33)
        image = ndimage.gaussian_filter(render(Scene(64, (obj,))), (1.6, 1.6, 0))
        assert detect_scene(image).objects == (obj,)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", range(26, 84, 3))
def test_a_shape_is_told_in_any_size(shape, side):
    """A large object fills 22 of 64 pixels, and a small one 12."""
    large = render_clean(Scene(512, (SceneObject(shape, "purple", "large", 256, 256),)))
    image, shrunk = np.full((128, 128, 3), 240, np.uint8), Image.fromarray(large).crop((128, 128, 384, 384))
    image[20 : 20 + side, 30 : 30 + side] = shrunk.resize((side, side), Image.BOX)
    (obj,) = detect_scene(image).objects
    half = side * 0.34375  # of its box: 88 / 256
    assert (obj.shape, obj.color) == (shape, "purple")
    assert obj.size == ("large" if half > 17 else "small")
    assert abs(obj.x - 30 - side / 2) <= 1 and abs(obj.y - 20 - side / 2) <= 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from((64, 128)))
@settings(max_examples=100, deadline=None)
def test_every_caption_of_a_scene_is_true_of_its_image(seed, most, size):
    random = np.random.default_rng(seed)
    scene = sample_scene(random, Sampling(size, most=most, first=ALL_PAIRS, others=ALL_PAIRS))
    detected = detect_scene(blurred(render(scene), random))
    for text in (caption(scene), *free_captions(scene, random)):
        assert check_caption(text, detected).true


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(
    ("objects", "wanted"),
    [
        ((CROSS, STAR, CIRCLE), RIGHT),
        # wrong colour, shape, size
        (
            (CIRCLE, dataclasses.replace(STAR, color="yellow"), CROSS),
            RIGHT._replace(objects=2 / 3, objects_and_sizes=2 / 3, all=False),
        ),
        (
            (CIRCLE, STAR, dataclasses.replace(CROSS, color="blue")),
            RIGHT._replace(objects=2 / 3, objects_and_sizes=2 / 3, relation=False, all=False),
        ),
        (
            (CIRCLE, STAR, dataclasses.replace(CROSS, shape="square")),
            RIGHT._replace(objects=2 / 3, objects_and_sizes=2 / 3, relation=False, all=False),
        ),
        (
            (dataclasses.replace(CIRCLE, size="small"), STAR, CROSS),
            RIGHT._replace(objects_and_sizes=2 / 3, all=False),
        ),
        # colours or shapes of two objects swapped
        (
            (CIRCLE, dataclasses.replace(STAR, color="green"), dataclasses.replace(CROSS, color="blue")),
            RIGHT._replace(objects=1 / 3, objects_and_sizes=1 / 3, relation=False, all=False),
        ),
        # missing
        ((CIRCLE, CROSS), RIGHT._replace(objects=2 / 3, objects_and_sizes=2 / 3, count=False, all=False)),
        (
            (STAR, CROSS),
            RIGHT._replace(objects=2 / 3, objects_and_sizes=2 / 3, count=False, relation=False, all=False),
        ),
        # too many: something else, and the same once more
        ((CIRCLE, STAR, CROSS, SceneObject("square", "cyan", "small", 15, 12)), RIGHT._replace(count=False, all=False)),
        (
            (CIRCLE, STAR, CROSS, dataclasses.replace(CROSS, size="large", x=15, y=15)),
            RIGHT._replace(count=False, all=False),
        ),
        # the first two swap places; another place is right as long as the relation holds
        (
            (dataclasses.replace(CIRCLE, x=50), STAR, dataclasses.replace(CROSS, x=15)),
            RIGHT._replace(relation=False, all=False),
        ),
        ((dataclasses.replace(CIRCLE, y=20), dataclasses.replace(STAR, x=50), CROSS), RIGHT),
    ],
)
def test_planted_errors_are_found(size, objects, wanted):
    assert caption(SCENE) == "a large red circle left of a small green cross and a small blue star"
    image = render(Scene(size, place_in(size, objects)))
    assert check_image(detect_scene(image), Scene(size, place_in(size, SCENE.objects))) == wanted


def test_objects_that_only_their_sizes_tell_apart():
    wanted = Scene(64, (CIRCLE, dataclasses.replace(CIRCLE, size="small", x=45)))
    swapped = Scene(64, (dataclasses.replace(CIRCLE, x=45), dataclasses.replace(CIRCLE, size="small")))
    assert check_image(detect_scene(render(wanted)), wanted) == RIGHT
    assert check_image(detect_scene(render(swapped)), wanted) == RIGHT._replace(relation=False, all=False)


def test_the_same_object_twice_is_one_too_many():
    image = np.concatenate([render(Scene(64, (STAR,)))[:32], render(Scene(64, (STAR,), noise=1))[:32]])
    detected = detect_scene(image)
    assert detected.objects == (STAR, dataclasses.replace(STAR, y=42))
    assert check_image(detected, Scene(64, (STAR,))) == ImageCheck(1, 1, False, None, False)
    two = Scene(64, (STAR, dataclasses.replace(STAR, color="red", y=42)))
    assert check_image(detected, two) == ImageCheck(0.5, 0.5, True, False, False)


@pytest.mark.parametrize("size", [64, 128])
def test_what_shows_nothing_is_right_about_nothing(size):
    random = np.random.default_rng(0)
    scene = Scene(size, place_in(size, SCENE.objects))
    images = [np.full((size, size, 3), level, np.uint8) for level in (255, 236, 128, 0)]
    images += [random.integers(0, 256, (size, size, 3), np.uint8) for _ in range(20)]
    images += [np.clip(random.normal(170, 60, (size, size, 3)), 0, 255).astype(np.uint8) for _ in range(20)]
    for image in images:
        detected = detect_scene(image)
        assert not detected.objects
        assert check_image(detected, scene) == ImageCheck(0, 0, False, False, False)
    assert [detect_scene(image).unclear for image in images[:3]] == [0, 0, 0]


def test_smooth_noise_is_no_scene():
    random = np.random.default_rng(0)
    for _ in range(100):
        noise = ndimage.gaussian_filter(random.normal(0, 1, (64, 64, 3)), (4, 4, 0))
        image = np.clip(190 + 70 * noise / noise.std(), 0, 255).astype(np.uint8)
        check = check_image(detect_scene(image), sample_scene(random, Sampling(fewest=2)))
        assert not check.all and check.objects <= 0.5


def test_specks_and_faint_bridges_do_not_matter():
    image = render(SCENE)
    image[45:47, 24:46] = (240 + np.array(COLOURS["green"])) // 2  # from the circle to the cross
    image[5:9, 5:9] = 0
    assert detect_scene(image).objects == SCENE.objects


def test_objects_that_touch_are_one_spot():
    image = render(SCENE)
    image[42:48, 24:46] = COLOURS["green"]
    detected = detect_scene(image)
    assert len(detected.objects) + detected.unclear == 2
    assert not check_image(detected, SCENE).count


def test_an_unclear_spot_counts_without_a_name():
    image = np.full((64, 64, 3), 240, np.uint8)
    image[20:24, 5:60] = COLOURS["red"]
    assert detect_scene(image) == DetectedScene(64, (), unclear=1)
    assert check_image(detect_scene(image), Scene(64, (CIRCLE,))) == ImageCheck(0, 0, True, None, False)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((64, 64, 3)), "must be uint8"),
        (np.zeros((64, 64), np.uint8), r"not uint8 \[64, 64\]"),
        (np.zeros((64, 64, 4), np.uint8), r"not uint8 \[64, 64, 4\]"),
        (np.zeros((64, 128, 3), np.uint8), r"not uint8 \[64, 128, 3\]"),
        (np.zeros((32, 32, 3), np.uint8), "multiple of 64"),
        (np.zeros((0, 0, 3), np.uint8), "multiple of 64"),
    ],
)
def test_what_is_no_image_of_a_scene(image, message):
    with pytest.raises(InputError, match=message):
        detect_scene(image)
