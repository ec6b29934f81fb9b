"""Antialiased resampling of bytes as torchvision's tensor backend computes it, bit for bit.

Formulas: `upsample_avx_bilinear_bicubic_uint8` and `_compute_index_ranges_int16_weights` of PyTorch
(aten/src/ATen/native/cpu/UpSampleKernel.cpp). Pillow differs in two ways, by up to 24 of 255 levels at sharp edges: it
does not always scale rows before columns, and its weights have more than 16 bits.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

_BITS = 16
_MOST_PRECISION = 22


def _triangle(x: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return np.maximum(0, 1 - np.abs(x))


def _cubic(x: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Keys' kernel with a = -0.5, Pillow's too."""
    x, a = np.abs(x), -0.5
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


FILTERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "bilinear": (_triangle, 1),
    "bicubic": (_cubic, 2),
}
"""The filters that antialias: each with its support in pixels."""


class _Taps(NamedTuple):
    """What each output position of one axis reads."""

    places: Int[np.ndarray, "S K"]
    weights: Int[np.ndarray, "S K"]
    """0 for places that are not read."""
    precision: int
    """The weights are multiples of 2 to the power of minus this."""


def resize_as_torchvision(
    image: UInt8[np.ndarray, "H W 3"],
    scaled_size: tuple[int, int],
    resample: str,
    box: tuple[int, int, int, int] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """The image scaled to `scaled_size` (height, width); of it `box` (left, top, right, bottom), else all."""
    left, top, right, bottom = box or (0, 0, *scaled_size[::-1])
    if resample == "nearest":  # torchvision's NEAREST_EXACT
        rows, columns = (_nearest(*sizes) for sizes in zip(image.shape[:2], scaled_size, strict=True))
        return image[rows[top:bottom, None], columns[left:right]]
    columns = _taps(image.shape[1], scaled_size[1], resample, slice(left, right))
    rows = _taps(image.shape[0], scaled_size[0], resample, slice(top, bottom))
    first, last = int(rows.places.min()), int(rows.places.max()) + 1  # others are not read
    scaled = _weighted(image[first:last].transpose(1, 0, 2), columns).transpose(1, 0, 2)
    return np.ascontiguousarray(_weighted(scaled, rows._replace(places=rows.places - first)))


def _nearest(length: int, scaled: int) -> Int[np.ndarray, " {scaled}"]:
    places = (np.arange(scaled, dtype=np.float32) + np.float32(0.5)) * np.float32(length / scaled)
    return np.minimum(places.astype(np.int64), length - 1)


def _taps(length: int, scaled: int, resample: str, part: slice) -> _Taps:
    """The weights of the outputs in `part`; the precision is that of all."""
    kernel, support = FILTERS[resample]
    scale = length / scaled
    stretch = max(scale, 1.0)  # shrinking widens the filter
    centres = scale * (np.arange(scaled) + 0.5)
    first = np.maximum((centres - support * stretch + 0.5).astype(np.int64), 0)
    end = np.minimum((centres + support * stretch + 0.5).astype(np.int64), length)
    places = first[:, None] + np.arange(int((end - first).max()))
    weights = kernel((places - centres[:, None] + 0.5) / stretch) * (places < end[:, None])
    weights /= weights.sum(1, keepdims=True)
    largest = weights.max()
    fits = (power for power in range(_MOST_PRECISION) if int(0.5 + largest * 2 ** (power + 1)) >= 2 ** (_BITS - 1))
    precision = next(fits, _MOST_PRECISION)
    rounded = np.trunc(weights * 2**precision + np.copysign(0.5, weights)).astype(np.int32)
    return _Taps(np.minimum(places, length - 1)[part], rounded[part], precision)


def _weighted(pixels: UInt8[np.ndarray, "L N C"], taps: _Taps) -> UInt8[np.ndarray, "S N C"]:
    """Sums along the first axis, rounded to bytes."""
    total = np.full((len(taps.places), *pixels.shape[1:]), 1 << (taps.precision - 1), np.int32)
    for places, weights in zip(taps.places.T, taps.weights.T, strict=True):
        total += pixels[places] * weights[:, None, None]
    return (total >> taps.precision).clip(0, 255).astype(np.uint8)
