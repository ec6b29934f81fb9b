"""Pictures read back: what was drawn is found whatever a decoder does to it, and each planted error is noticed."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from vlm_jax.errors import InputError
from vlm_jax.scenes.drawing import draw, draw_clean
from vlm_jax.scenes.language import caption, free_captions
from vlm_jax.scenes.picture_rules import PictureCheck, check_picture
from vlm_jax.scenes.pictures import SeenScene, read_picture
from vlm_jax.scenes.rules import check_caption
from vlm_jax.scenes.sampling import ALL_PAIRS, HELD_OUT_PAIRS, Sampling, sample_scene
from vlm_jax.scenes.scene import COLOURS, SHAPES, SIZES, Scene, Thing

RIGHT = PictureCheck(objects=1, objects_and_sizes=1, count=True, relation=True, all=True)
CIRCLE = Thing("circle", "red", "large", 15, 45)
STAR = Thing("star", "blue", "small", 40, 10)
CROSS = Thing("cross", "green", "small", 50, 45)
SCENE = Scene(64, (CIRCLE, STAR, CROSS))


def blurred(picture, random):
    picture = ndimage.gaussian_filter(picture.astype(float), (0.7, 0.7, 0))
    return np.clip(np.round(picture + random.normal(0, 4, picture.shape)), 0, 255).astype(np.uint8)


def compressed(picture, random):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=40)  # half the resolution of colour, as is JPEG's default
    return np.array(Image.open(file))


def halved(picture, random):
    side = len(picture)
    return np.array(Image.fromarray(picture).resize((side // 2, side // 2), Image.BOX).resize((side, side)))


def miscoloured(picture, random):
    wrong = picture * random.uniform(0.9, 1.08, 3) + random.normal(0, 8, 3)
    return blurred(np.clip(wrong, 0, 255), random)


def place_in(size, things):
    """Things of a picture of 64 pixels in one of `size`."""
    return tuple(dataclasses.replace(thing, x=thing.x * size // 64, y=thing.y * size // 64) for thing in things)


def test_what_was_drawn_is_read_back(scenes):
    random = np.random.default_rng(0)
    held_out = Sampling(first=HELD_OUT_PAIRS, others=ALL_PAIRS)
    for scene in [*scenes, *(sample_scene(random, held_out) for _ in range(50))]:
        seen = read_picture(draw(scene))
        assert (seen.things, seen.unclear, seen.size) == (scene.things, 0, scene.size)
        assert np.abs(np.subtract(seen.background, scene.background)).max() <= 1
        assert check_picture(seen, scene) == RIGHT._replace(relation=True if len(scene.things) > 1 else None)


@pytest.mark.parametrize(
    ("degrade", "least"), [(blurred, 0.995), (compressed, 0.99), (halved, 0.995), (miscoloured, 0.995)]
)
def test_what_was_drawn_is_read_back_from_a_worse_picture(scenes, degrade, least):
    random = np.random.default_rng(0)
    seen = [read_picture(degrade(draw(scene), random)) for scene in scenes]
    assert np.mean([one.things == scene.things for one, scene in zip(seen, scenes, strict=True)]) >= least


@pytest.mark.parametrize("size", [64, 128, 192])
@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_thing_is_read_back_also_in_corners(size, shape, kind):
    reach = SIZES[kind] * size // 64
    for color, x in itertools.product(COLOURS, (reach, size - reach, size // 2 + 1)):
        thing = Thing(shape, color, kind, x, x)
        assert read_picture(draw(Scene(size, (thing,), (222, 249, 236), noise=x))).things == (thing,)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_strong_blur_makes_no_other_thing(shape):
    """Of a small star, hardly a pixel is not mixed with the background."""
    for kind, color in itertools.product(SIZES, COLOURS):
        thing = Thing(shape, color, kind, 31, 33)
        picture = ndimage.gaussian_filter(draw(Scene(64, (thing,))), (1.6, 1.6, 0))
        assert read_picture(picture).things == (thing,)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", range(26, 84, 3))
def test_a_shape_is_told_in_any_size(shape, side):
    """A large thing fills 22 of 64 pixels, and a small one 12."""
    large = draw_clean(Scene(512, (Thing(shape, "purple", "large", 256, 256),)))
    picture, shrunk = np.full((128, 128, 3), 240, np.uint8), Image.fromarray(large).crop((128, 128, 384, 384))
    picture[20 : 20 + side, 30 : 30 + side] = shrunk.resize((side, side), Image.BOX)
    (thing,) = read_picture(picture).things
    half = side * 0.34375  # of its box: 88 / 256
    assert (thing.shape, thing.color) == (shape, "purple")
    assert thing.size == ("large" if half > 17 else "small")
    assert abs(thing.x - 30 - side / 2) <= 1 and abs(thing.y - 20 - side / 2) <= 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from((64, 128)))
@settings(max_examples=100, deadline=None)
def test_every_caption_of_a_scene_is_true_of_its_picture(seed, most, size):
    random = np.random.default_rng(seed)
    scene = sample_scene(random, Sampling(size, most=most, first=ALL_PAIRS, others=ALL_PAIRS))
    seen = read_picture(blurred(draw(scene), random))
    for text in (caption(scene), *free_captions(scene, random)):
        assert check_caption(text, seen).true


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(
    ("things", "wanted"),
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
        # colours or shapes of two things swapped
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
        ((CIRCLE, STAR, CROSS, Thing("square", "cyan", "small", 15, 12)), RIGHT._replace(count=False, all=False)),
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
def test_planted_errors_are_found(size, things, wanted):
    assert caption(SCENE) == "a large red circle left of a small green cross and a small blue star"
    picture = draw(Scene(size, place_in(size, things)))
    assert check_picture(read_picture(picture), Scene(size, place_in(size, SCENE.things))) == wanted


def test_things_that_only_their_sizes_tell_apart():
    wanted = Scene(64, (CIRCLE, dataclasses.replace(CIRCLE, size="small", x=45)))
    swapped = Scene(64, (dataclasses.replace(CIRCLE, x=45), dataclasses.replace(CIRCLE, size="small")))
    assert check_picture(read_picture(draw(wanted)), wanted) == RIGHT
    assert check_picture(read_picture(draw(swapped)), wanted) == RIGHT._replace(relation=False, all=False)


def test_the_same_thing_twice_is_one_too_many():
    picture = np.concatenate([draw(Scene(64, (STAR,)))[:32], draw(Scene(64, (STAR,), noise=1))[:32]])
    seen = read_picture(picture)
    assert seen.things == (STAR, dataclasses.replace(STAR, y=42))
    assert check_picture(seen, Scene(64, (STAR,))) == PictureCheck(1, 1, False, None, False)
    two = Scene(64, (STAR, dataclasses.replace(STAR, color="red", y=42)))
    assert check_picture(seen, two) == PictureCheck(0.5, 0.5, True, False, False)


@pytest.mark.parametrize("size", [64, 128])
def test_what_shows_nothing_is_right_about_nothing(size):
    random = np.random.default_rng(0)
    scene = Scene(size, place_in(size, SCENE.things))
    pictures = [np.full((size, size, 3), level, np.uint8) for level in (255, 236, 128, 0)]
    pictures += [random.integers(0, 256, (size, size, 3), np.uint8) for _ in range(20)]
    pictures += [np.clip(random.normal(170, 60, (size, size, 3)), 0, 255).astype(np.uint8) for _ in range(20)]
    for picture in pictures:
        seen = read_picture(picture)
        assert not seen.things
        assert check_picture(seen, scene) == PictureCheck(0, 0, False, False, False)
    assert [read_picture(picture).unclear for picture in pictures[:3]] == [0, 0, 0]


def test_smooth_noise_is_no_scene():
    random = np.random.default_rng(0)
    for _ in range(100):
        noise = ndimage.gaussian_filter(random.normal(0, 1, (64, 64, 3)), (4, 4, 0))
        picture = np.clip(190 + 70 * noise / noise.std(), 0, 255).astype(np.uint8)
        check = check_picture(read_picture(picture), sample_scene(random, Sampling(fewest=2)))
        assert not check.all and check.objects <= 0.5


def test_specks_and_faint_bridges_do_not_matter():
    picture = draw(SCENE)
    picture[45:47, 24:46] = (240 + np.array(COLOURS["green"])) // 2  # from the circle to the cross
    picture[5:9, 5:9] = 0
    assert read_picture(picture).things == SCENE.things


def test_things_that_touch_are_one_spot():
    picture = draw(SCENE)
    picture[42:48, 24:46] = COLOURS["green"]
    seen = read_picture(picture)
    assert len(seen.things) + seen.unclear == 2
    assert not check_picture(seen, SCENE).count


def test_a_spot_that_looks_like_nothing_counts_and_is_not_named():
    picture = np.full((64, 64, 3), 240, np.uint8)
    picture[20:24, 5:60] = COLOURS["red"]
    assert read_picture(picture) == SeenScene(64, (), unclear=1)
    assert check_picture(read_picture(picture), Scene(64, (CIRCLE,))) == PictureCheck(0, 0, True, None, False)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((64, 64, 3)), "must be uint8"),
        (np.zeros((64, 64), np.uint8), r"not uint8 \[64, 64\]"),
        (np.zeros((64, 64, 4), np.uint8), r"not uint8 \[64, 64, 4\]"),
        (np.zeros((64, 128, 3), np.uint8), r"not uint8 \[64, 128, 3\]"),
        (np.zeros((32, 32, 3), np.uint8), "multiple of 64"),
        (np.zeros((0, 0, 3), np.uint8), "multiple of 64"),
    ],
)
def test_what_is_no_picture_of_a_scene(picture, message):
    with pytest.raises(InputError, match=message):
        read_picture(picture)
