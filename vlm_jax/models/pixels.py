"""Pixels to the model's input, on the device."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from vlm_jax.data.image_settings import ImageInput
from vlm_jax.data.images import normalise


def normalise_pixels(
    image: UInt8[Array, "*batch h w 3"] | Float[Array, "*features"], settings: ImageInput
) -> Float[Array, "*values"]:
    """(pixel / 255 - mean) / std as float32, bit for bit what `data.images.normalise` computes; floats stay.

    Each channel's 256 values are looked up: a product and a sum, which a compiler may fuse into one operation with one
    rounding, are another value on every other pixel.
    """
    if image.dtype != jnp.uint8:
        return image
    levels = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 1, 3))
    table = normalise(np.ascontiguousarray(levels), settings)[:, 0].T.ravel()
    first = 256 * np.arange(3, dtype=np.int32).reshape((1,) * (image.ndim - 1) + (3,))
    return jnp.asarray(table).at[image.astype(jnp.int32) + first].get(mode="promise_in_bounds")
