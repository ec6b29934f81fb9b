"""Which images can be decoded, and what their files are."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from vlm_jax.data.images import decode_image, read_image_file
from vlm_jax.errors import InputError
from vlm_jax.types import Example


class ImageInspection(NamedTuple):
    """What a look into every image file found."""

    digests: dict[str, str]
    """SHA-256 of the file, by image id; of all that could be read as files."""
    unreadable: dict[str, str]
    """Why an image cannot be decoded, by image id."""


def inspect_images(
    examples: Sequence[Example], *, max_pixels: int, threads: int = 2, name: str | None = None
) -> ImageInspection:
    """Read and decode every image, in threads; `name` is what messages call an image, by default its file or its id."""

    def inspect(position: int) -> tuple[str, str | None, str | None]:
        example, digest = examples[position], None
        try:
            data = example.image if isinstance(example.image, bytes) else read_image_file(example.image, name=name)
            digest = hashlib.sha256(data).hexdigest()
            decode_image(data, name=name or name_of(example), max_pixels=max_pixels)
        except InputError as error:
            return example.image_id, digest, str(error)
        return example.image_id, digest, None

    inspection = ImageInspection({}, {})
    pool = ThreadPoolExecutor(threads)
    try:
        for image_id, digest, reason in pool.map(inspect, range(len(examples))):
            if digest is not None:
                inspection.digests[image_id] = digest
            if reason is not None:
                inspection.unreadable[image_id] = reason
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted look ends at once
    return inspection


def name_of(example: Example) -> str:
    """What a message calls an image: its file, or its id where it has none of its own."""
    return f"image {example.image_id}" if isinstance(example.image, bytes) else str(example.image)
