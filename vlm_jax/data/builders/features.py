"""The record that every builder writes: an image with all its questions."""

import tensorflow_datasets as tfds


def image_with_questions(size: tuple[int, int]) -> tfds.features.FeaturesDict:
    """Features of one image of `size` (height, width) pixels, encoded as PNG, and its questions."""
    text = tfds.features.Text()
    return tfds.features.FeaturesDict(
        {
            "image_id": text,
            "image": tfds.features.Image(shape=(*size, 3), encoding_format="png"),
            "questions": tfds.features.Sequence({"question_id": text, "text": text, "answers": text, "kind": text}),
        }
    )
