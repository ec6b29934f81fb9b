"""Rows (an image and which of its questions) to batches of fixed shape."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlm_jax.data.augmentation import augment_image
from vlm_jax.data.encoding import EncodedExample, ExampleEncoder, Features, Pixels
from vlm_jax.types import Batch, LoadedBatch


class Row(NamedTuple):
    """One image of a batch."""

    example: EncodedExample
    texts: Sequence[int]
    """Which of its questions fill the slots, K of them at most."""
    random: np.random.Generator | None = None
    """Source of the augmentation; without one there is none."""


def make_batch(rows: Sequence[Row], encode: ExampleEncoder, *, size: int, start: int = 0) -> LoadedBatch:
    """A batch of `size` images, numbered from `start` in the global batch.

    Slots without a question, and images beyond `rows`, have weight 0, an empty text ([CLS] [SEP], so that no
    attention row is empty) and the empty question id.
    """
    slots = encode.texts_per_image
    empty_ids, empty_mask = encode.encode_texts([""])
    tokens = rows[0].example.image_tokens
    first = rows[0].example.image
    images = np.zeros((size, *first.shape), first.dtype) if tokens is None else None
    image_tokens = None if tokens is None else np.zeros((size, *tokens.shape), np.int32)
    input_ids = np.tile(empty_ids, (size, slots, 1))
    text_mask = np.tile(empty_mask, (size, slots, 1))
    answers = np.zeros((size, slots, encode.accepted_answers), np.int32)
    answer_weights = np.zeros((size, slots, encode.accepted_answers), np.float32)
    weight = np.zeros((size, slots), np.float32)
    text_ids = [[""] * slots for _ in range(size)]
    for place, (example, questions, random) in enumerate(rows):
        if image_tokens is not None:
            image_tokens[place] = example.image_tokens
        else:
            images[place] = _seen(example, encode, random) if random else example.image
        count, chosen = len(questions), list(questions)
        input_ids[place, :count] = example.input_ids[chosen]
        text_mask[place, :count] = example.text_mask[chosen]
        answers[place, :count] = example.answers[chosen]
        answer_weights[place, :count] = example.answer_weights[chosen]
        weight[place, :count] = 1
        text_ids[place][:count] = [example.text_ids[question] for question in chosen]
    index = np.arange(start, start + size, dtype=np.int32)
    batch = Batch(images, input_ids, text_mask, answers, answer_weights, weight, index, image_tokens)
    return LoadedBatch(batch, text_ids)


def _seen(example: EncodedExample, encode: ExampleEncoder, random: np.random.Generator) -> Pixels | Features:
    """The image as a training batch shows it: one of its stored views, or a new one; features have no others."""
    if example.views:
        return example.views[random.integers(len(example.views))]
    if example.image.dtype != np.uint8:
        return example.image
    if example.original is not None:
        return encode.new_view(example.original, random)
    return augment_image(example.image, encode.image, random)
