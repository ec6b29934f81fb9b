"""What every builder writes: a record an image, with its texts, in array_record files that need no TensorFlow."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from vlm_jax.data.splits import tenth

Record = tuple[str, dict[str, Any]]
"""The id of an image, and its fields."""


class RecordBuilder(tfds.core.GeneratorBasedBuilder):
    """A builder whose `_split_generators` returns the records of every split."""

    VERSION = tfds.core.Version("1.0.0")

    def _generate_examples(self) -> Iterator[Record]:
        raise NotImplementedError


def image_with_questions(size: tuple[int, int]) -> dict[str, Any]:
    """Features of one image of `size` (height, width) pixels, encoded as PNG, and its questions."""
    text = tfds.features.Text()
    return {
        "image_id": text,
        "image": tfds.features.Image(shape=(*size, 3), encoding_format="png"),
        "questions": tfds.features.Sequence({"question_id": text, "text": text, "answers": text, "kind": text}),
    }


def with_validation(train: Iterable[Record]) -> dict[str, Iterator[Record]]:
    """The training records without a tenth of the images, and that tenth as validation."""
    splits: dict[str, list[Record]] = {"train": [], "validation": []}
    for record in train:
        splits["validation" if tenth(record[0]) == 0 else "train"].append(record)
    return {split: iter(records) for split, records in splits.items()}


def png(image: UInt8[np.ndarray, "h w 3"]) -> io.BytesIO:
    """The image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    file.seek(0)
    return file
