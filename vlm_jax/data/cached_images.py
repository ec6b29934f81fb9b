"""Images at the model's size, decoded once for every run that needs them."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import PIL
from jaxtyping import UInt8

from vlm_jax.data.caches import Append, fill, open_cache
from vlm_jax.data.digests import image_digests
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.image_settings import ImageInput, Pad, RandomResizedCrop, Resize, Stretch
from vlm_jax.data.row_store import KEY_DIGITS, RowStore
from vlm_jax.data.settings import DataSet
from vlm_jax.data.sources import Examples
from vlm_jax.settings.groups import json_tree
from vlm_jax.types import Example, Json

AT_ONCE = 1000  # images that wait for a thread


@dataclass(frozen=True)
class CachedImages:
    """Images of splits at the model's size, by what an `Example` has as its image."""

    store: RowStore
    keys: dict[object, str]
    """The key of each image that is not bytes."""
    complete: bool
    """Whether every image of the splits was there when they were opened."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image's pixels."""
        return self.store.shape

    def get(self, image: object) -> UInt8[np.ndarray, "h w 3"] | None:
        """The pixels of an image; None where they are not cached."""
        key = content_key(image) if isinstance(image, bytes) else self.keys.get(image)
        return None if key is None else self.store.get(key)

    def views(self, image: object) -> tuple[()]:
        """None: augmentation makes a new view each time."""
        return ()


class Keyed(NamedTuple):
    """The images of splits by their content."""

    places: dict[str, tuple[Sequence[Example], int]]
    """By key: a split and the place of an image in it."""
    keys: dict[object, str]
    """The key of each image that is not bytes."""


def cache_images(splits: Sequence[Sequence[Example]], encode: ExampleEncoder, data: DataSet) -> CachedImages | None:
    """The images of splits at the encoder's size, after those that no run has decoded before are; None without a cache.

    `InputError` names an image that cannot be read.
    """
    store = open_cache(data, "images", image_specification(encode.image))
    if store is None:
        return None
    places, keys = key_images(splits, data)

    def write(append: Append, missing: list[str]) -> None:
        def decode(key: str) -> None:
            examples, place = places[key]
            append(key, encode.load_image(examples[place]))

        waiting, pool = iter(missing), ThreadPoolExecutor(data.threads)
        try:
            while part := list(islice(waiting, AT_ONCE)):
                list(pool.map(decode, part))
        finally:
            pool.shutdown(cancel_futures=True)

    height, width = encode.image.size
    complete = fill(store, places, data, what=f"images of {height} x {width} pixels", write=write)
    return CachedImages(store, keys, complete)


def image_specification(settings: ImageInput) -> dict[str, Json]:
    """What decides the pixels of an image beside its file."""
    return {
        "shape": [*settings.size, 3],
        "dtype": "uint8",
        "resize": json_tree(_at_rest(settings.resize)),
        "fill": list(settings.mean) if isinstance(settings.resize, Pad) else None,
        "pillow": PIL.__version__,
    }


def _at_rest(resize: Resize) -> Resize:
    """How images are scaled that do not vary."""
    return Stretch(resample=resize.resample) if isinstance(resize, RandomResizedCrop) else resize


def key_images(splits: Sequence[Sequence[Example]], data: DataSet) -> Keyed:
    """The images of splits by content; a file that has not changed since it was read is not opened."""
    keyed = Keyed({}, {})
    for examples in splits:
        keys = [image_digest[:KEY_DIGITS] for image_digest in image_digests(examples, data)]
        for place, key in enumerate(keys):
            keyed.places.setdefault(key, (examples, place))
        if not isinstance(examples, Examples):  # those have bytes
            images = (example.image for example in examples)
            keyed.keys.update(
                (image, key) for image, key in zip(images, keys, strict=True) if not isinstance(image, bytes)
            )
    return keyed


def content_key(image: bytes) -> str:
    """The key of an encoded image."""
    return hashlib.sha256(image).hexdigest()[:KEY_DIGITS]
