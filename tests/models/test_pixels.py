"""Pixels are normalised on the device as NumPy does it, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.data.image_settings import ImageInput
from vlm_jax.data.images import normalise
from vlm_jax.models.pixels import normalise_pixels

IMAGENET = ImageInput(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.mark.parametrize("settings", [ImageInput(), IMAGENET], ids=["default", "imagenet"])
@pytest.mark.parametrize("leading", [(), (2,), (3, 2)])
def test_every_level_of_every_channel_is_bit_equal(settings, leading):
    pixels = np.random.default_rng(0).permuted(np.arange(768, dtype=np.int32) % 256).astype(np.uint8)
    pixels = np.broadcast_to(pixels.reshape(16, 16, 3), (*leading, 16, 16, 3))
    normalised = jax.jit(lambda image: normalise_pixels(image, settings) * 1)(pixels)
    assert normalised.dtype == jnp.float32
    np.testing.assert_array_equal(normalised, normalise(np.ascontiguousarray(pixels), settings))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_floats_stay(dtype):
    features = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, 5)), dtype)
    assert normalise_pixels(features, IMAGENET) is features
