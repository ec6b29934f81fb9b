"""One example to arrays: pixels, token ids, soft targets; pixels are read from a cache where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vlm_jax.data.answers import AnswerVocabulary
from vlm_jax.data.augmentation import augment_image, random_part
from vlm_jax.data.image_settings import ImageInput, RandomResizedCrop
from vlm_jax.data.images import decode_image, resize_image
from vlm_jax.data.settings import MAX_PIXELS
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.types import Example, Text

KEEP_BYTES = 2**30
"""Data sets whose encoded examples take less than this are encoded once and stay in memory."""
CACHED_BYTES = 2**10
"""Of an encoded example whose image is cached: its texts, and where the image is."""


Pixels = UInt8[np.ndarray, "h w 3"]
Features = Float[np.ndarray, "*grid C"]


@runtime_checkable
class ImageRows(Protocol):
    """Pixels or features of images that were made before."""

    @property
    def complete(self) -> bool:
        """Whether all images of a run are there."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image's pixels or features."""

    def get(self, image: object) -> Pixels | Features | None:
        """Those of what an `Example` has as its image; None where they are not there and it is decoded instead."""

    def views(self, image: object) -> tuple[Features, ...]:
        """Those of its augmented views; empty where views are made when a batch is."""


class EncodedExample(NamedTuple):
    """An image at the model's size, not yet augmented, or its features, with all its `Q` texts."""

    image: Pixels | Features | None
    image_tokens: Int[np.ndarray, "gh gw"] | None
    """One of the two is None."""
    input_ids: Int[np.ndarray, "Q T"]
    text_mask: Bool[np.ndarray, "Q T"]
    answers: Int[np.ndarray, "Q R"]
    answer_weights: Float[np.ndarray, "Q R"]
    text_ids: tuple[str, ...]
    views: tuple[Features, ...] = ()
    """Those of the image's augmented views, for training, where they are stored."""
    original: Example | None = None
    """The example itself, for training on parts of its image, which are cut out anew each time."""


@dataclass(frozen=True)
class ExampleEncoder:
    """How an `Example` becomes arrays."""

    tokenizer: Tokenizer
    answers: AnswerVocabulary | None
    """None where texts are no questions."""
    image: ImageInput
    max_length: int
    """Tokens of a text (T)."""
    texts_per_image: int
    """Question slots of an image (K)."""
    accepted_answers: int = 1
    """Distinct answers that a question can have (R)."""
    max_pixels: int = MAX_PIXELS
    """Pixels over which an image is refused."""
    cached: ImageRows | None = field(default=None, compare=False)
    """Where images are read that were decoded before; None where all are decoded."""
    augmented: bool = False
    """Whether examples come with the stored views of their images."""

    def __call__(self, example: Example) -> EncodedExample:
        """The arrays of one example; `InputError` names the image that cannot be read."""
        shape = (len(example.texts), self.accepted_answers)
        answers, weights = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        for row, text in enumerate(example.texts):
            for column, (answer, share) in enumerate(self._target(text)):
                answers[row, column], weights[row, column] = answer, share
        input_ids, text_mask = self.encode_texts([text.text for text in example.texts])
        ids = tuple(text.text_id for text in example.texts)
        image = self.load_image(example) if example.image_tokens is None else None
        views = self.cached.views(example.image) if self.augmented and self.cached is not None else ()
        encoded = EncodedExample(image, example.image_tokens, input_ids, text_mask, answers, weights, ids, views)
        is_cut = self.augmented and isinstance(self.image.resize, RandomResizedCrop)
        return encoded._replace(original=example) if is_cut else encoded

    def load_image(self, example: Example) -> Pixels | Features:
        """The pixels of an image, read or decoded, or its features; `InputError` names one that cannot be read."""
        if isinstance(example.image, np.ndarray):
            return example.image
        if self.cached is not None and (row := self.cached.get(example.image)) is not None:
            return row
        return resize_image(self._decode(example), self.image)

    def new_view(self, example: Example, random: np.random.Generator) -> Pixels:
        """The image as training shows it once: augmented, and where parts are cut out, a part of the file's pixels."""
        if isinstance(self.image.resize, RandomResizedCrop):
            return augment_image(random_part(self._decode(example), self.image, random), self.image, random)
        return augment_image(self.load_image(example), self.image, random)

    def _decode(self, example: Example) -> UInt8[np.ndarray, "H W 3"]:
        if isinstance(example.image, np.ndarray):
            return example.image
        name = f"image {example.image_id}" if isinstance(example.image, bytes) else str(example.image)
        return decode_image(example.image, name=name, max_pixels=self.max_pixels)

    def encode_texts(self, texts: Sequence[str]) -> tuple[Int[np.ndarray, "N T"], Bool[np.ndarray, "N T"]]:
        """Token ids and mask of each text."""
        return self.tokenizer.encode(texts, self.max_length)

    def _target(self, text: Text) -> Sequence[tuple[int, float]]:
        """(class, share of people) of every accepted answer in the vocabulary."""
        if self.answers is None:
            return ()
        if (distinct := len(set(text.answers))) > self.accepted_answers:
            raise InputError(
                f"question {text.text_id} has {distinct} distinct answers, "
                f"more than the {self.accepted_answers} the encoder was made for"
            )
        return self.answers.shares(text.answers)


class EncodedExamples:
    """A data set through an encoder; kept in memory after first use if it is small (`KEEP_BYTES`).

    Images that are cached stay on the disk, and take no memory but the system's file cache.
    """

    def __init__(self, examples: Sequence[Example], encode: ExampleEncoder):
        self._examples, self._encode = examples, encode
        height, width = encode.image.size
        is_cached = encode.cached is not None and encode.cached.complete
        example_bytes = CACHED_BYTES if is_cached else height * width * 3
        self._encoded: list[EncodedExample | None] | None = None
        if len(examples) * example_bytes < KEEP_BYTES:
            self._encoded = [None] * len(examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> EncodedExample:
        if self._encoded is None:
            return self._encode(self._examples[index])
        encoded = self._encoded[index]
        if encoded is None:  # two threads may both do this, with the same result
            encoded = self._encoded[index] = self._encode(self._examples[index])
        return encoded
