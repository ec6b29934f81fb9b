"""Grid features of images that were computed before, read in the place of pixels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float16

from vlm_jax.data.cached_images import content_key
from vlm_jax.data.file_cache import digest
from vlm_jax.data.images import read_image_file
from vlm_jax.data.row_store import RowStore
from vlm_jax.errors import InputError
from vlm_jax.types import StoredImage


@dataclass(frozen=True)
class StoredFeatures:
    """Features of images in a store, by the content of the image's file."""

    store: RowStore
    keys: dict[object, str]
    """The key of each image of the run that is not bytes; those of others are found in their files."""
    augmentation: str = ""
    """What the views of an image depend on beside the image; see `augmentation`."""
    num_views: int = 0
    """Augmented views of each training image."""
    complete: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image's features: the grid, and channels."""
        return self.store.shape

    def get(self, image: bytes | Path | StoredImage) -> Float16[np.ndarray, "*grid C"]:
        """The features of an image as it is; `InputError` where they are not there."""
        return self._row(self._key(image), image)

    def views(self, image: bytes | Path | StoredImage) -> tuple[Float16[np.ndarray, "*grid C"], ...]:
        """Those of its augmented views; empty without augmentation."""
        key = self._key(image)
        return tuple(
            self._row(view_key(key, number, self.augmentation), image) for number in range(1, self.num_views + 1)
        )

    def _key(self, image: bytes | Path | StoredImage) -> str:
        if isinstance(image, bytes):
            return content_key(image)
        return self.keys.get(image) or content_key(read_image_file(image))

    def _row(self, key: str, image: bytes | Path | StoredImage) -> Float16[np.ndarray, "*grid C"]:
        row = self.store.get(key)
        if row is None:
            name = "an image" if isinstance(image, bytes) else str(image)
            raise InputError(
                f"{self.store.directory} holds no features of {name} as it is now, or damaged ones; compute them again"
            )
        return row


def view_key(key: str, number: int, augmentation: str) -> str:
    """The key of an augmented view, from that of its image; 0 is the image itself."""
    return digest(f"{key} {number} {augmentation}") if number else key


def view_random(key: str) -> np.random.Generator:
    """What a view's augmentation is drawn from: its key alone."""
    return np.random.Generator(np.random.PCG64(int(key, 16)))
