"""Random parts of photographs in other colours: where they lie, what their pixels are, and what draws them."""

import dataclasses
import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from vlm_jax.data.augmentation import augmentation_of, crop_box, random_part
from vlm_jax.data.batches import Row, make_batch
from vlm_jax.data.cached_images import image_specification
from vlm_jax.data.image_settings import AugmentedImages, RandomResizedCrop, Stretch
from vlm_jax.data.images import resize_image

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
PLAIN = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def settings(**changes):
    return AugmentedImages(size=(20, 24), resize=RandomResizedCrop(**changes))


def test_parts_have_the_wanted_area_and_shape_and_lie_everywhere():
    crop, boxes = RandomResizedCrop(scale=(0.2, 0.5)), []
    for seed in range(400):
        left, top, right, bottom = crop_box(600, 400, crop, np.random.default_rng(seed))
        assert 0 <= left < right <= 600 and 0 <= top < bottom <= 400
        boxes.append((left, top, (right - left) * (bottom - top) / 240_000, (right - left) / (bottom - top)))
    left, top, areas, shapes = np.transpose(boxes)
    assert 0.195 < areas.min() < 0.22 and 0.48 < areas.max() < 0.505
    assert 0.74 < shapes.min() < 0.77 and 1.3 < shapes.max() < 1.35
    assert abs(np.median(np.log(shapes))) < 0.06  # as often wide as high
    assert left.min() < 10 and left.max() > 250 and top.min() < 10 and top.max() > 100


@pytest.mark.parametrize(("size", "box"), [((1, 5000), (0, 2499, 1, 2500)), ((5000, 1), (2499, 0, 2500, 1))])
def test_where_no_part_fits_it_is_the_largest_centre(size, box):
    """Of one pixel in 5,000 there is no part of half the area that is nearly square."""
    assert crop_box(*size, RandomResizedCrop(), np.random.default_rng(0)) == box
    assert random_part(np.zeros((*size[::-1], 3), np.uint8), settings(), np.random.default_rng(0)).shape == (20, 24, 3)


def test_a_part_has_the_pixels_of_the_file():
    """It is cut out of the image in its own size, and then scaled once."""
    wanted = settings(**PLAIN)
    part = random_part(PHOTO, wanted, np.random.default_rng(3))
    left, top, right, bottom = crop_box(60, 40, wanted.resize, np.random.default_rng(3))
    cut = Image.fromarray(PHOTO[top:bottom, left:right].copy()).resize((24, 20), Image.Resampling.BICUBIC)
    assert np.array_equal(part, cut)
    assert not np.array_equal(part, resize_image(PHOTO, wanted))


@pytest.mark.parametrize("name", PLAIN)
def test_colours_change_by_a_factor(name):
    """The formulas of ColorJitter, written for NumPy: every pixel moves away from black, the mean grey, or its grey."""
    crop = RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.5, 1.5), **PLAIN | {name: 0.4})
    wanted = AugmentedImages(size=(40, 60), resize=crop)
    grey = PHOTO @ np.array([0.299, 0.587, 0.114])
    origin = {"brightness": 0.0, "contrast": grey.mean(), "saturation": grey[..., None]}[name]
    factors = set()
    for seed in range(8):
        random = np.random.default_rng(seed)
        crop_box(60, 40, crop, random)
        factor = random.uniform(0.6, 1.4)
        factors.add(factor > 1)
        changed = random_part(PHOTO, wanted, np.random.default_rng(seed))
        expected = np.clip(origin + factor * (PHOTO - origin), 0, 255)
        assert np.abs(changed - expected).max() <= 2
    assert factors == {True, False}


def test_colours_change_in_every_order():
    """Each image is what one order of the three changes makes of it, and no order is left out."""
    crop = RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.5, 1.5), **dict.fromkeys(PLAIN, 0.9))
    wanted, orders = AugmentedImages(size=(40, 60), resize=crop), set()
    enhancers = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
    for seed in range(60):
        random = np.random.default_rng(seed)
        crop_box(60, 40, crop, random)
        factors = [random.uniform(0.1, 1.9) for _ in enhancers]
        changed, fitting = random_part(PHOTO, wanted, np.random.default_rng(seed)), []
        for order in itertools.permutations(range(3)):
            image = Image.fromarray(PHOTO)
            for place in order:
                image = enhancers[place](image).enhance(factors[place])
            fitting += [order] if np.array_equal(changed, image) else []
        assert fitting
        orders |= {*fitting} if len(fitting) == 1 else set()
    assert len(orders) == 6


def test_each_example_is_cut_by_its_own_generator_and_others_are_whole(encoder, splits):
    wanted = AugmentedImages(size=(20, 20), resize=RandomResizedCrop())
    encode = encoder(image=wanted, augmented=True)
    example = encode(splits["train"][0])
    rows = [Row(example, [0], np.random.default_rng(seed)) for seed in (1, 2, 1)]
    first, second, third = make_batch(rows, encode, size=3).batch.image
    assert np.array_equal(first, third) and not np.array_equal(first, second)
    alone = make_batch([Row(example, [0], np.random.default_rng(2))], encode, size=1).batch.image[0]
    assert np.array_equal(alone, second)  # whatever else is in the batch
    unseen = dataclasses.replace(encode, augmented=False)(splits["train"][0])
    stretched = encoder(image=AugmentedImages(size=(20, 20), resize=Stretch()))(splits["train"][0])
    assert unseen.original is None and np.array_equal(unseen.image, stretched.image)


def test_flips_and_moves_still_apply(encoder, splits):
    wanted = AugmentedImages(size=(20, 20), resize=RandomResizedCrop(), flip=True)
    flipping, plain = encoder(image=wanted), encoder(image=wanted.model_copy(update={"flip": False}))
    mirrored = []
    for seed in range(20):
        view, part = (e.new_view(splits["train"][0], np.random.default_rng(seed)) for e in (flipping, plain))
        mirrored.append(np.array_equal(view, part[:, ::-1]))
        assert mirrored[-1] or np.array_equal(view, part)
    assert 4 < sum(mirrored) < 16


def test_views_depend_on_the_settings_and_whole_images_do_not():
    crop, other = settings(), settings(scale=(0.3, 1.0))
    assert augmentation_of(crop) and augmentation_of(crop) != augmentation_of(other)
    assert augmentation_of(AugmentedImages(flip=True)) == "flip True shift 0"  # as stored views have it
    stretch = AugmentedImages(size=(20, 24), resize=Stretch())
    assert image_specification(crop) == image_specification(stretch) and not augmentation_of(stretch)
