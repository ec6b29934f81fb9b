"""Published weights in use: vectors of texts, and classes of images."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from vlm_jax.errors import InputError, shown
from vlm_jax.inference.forward import ForwardModel
from vlm_jax.inference.images import ImageLike, bucket, filled, grid_features
from vlm_jax.inference.results import Classes, Features
from vlm_jax.types import Parameters
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.publish import publish
from vlm_jax.weights.text_encoder import TextEncoder

AT_ONCE = 16


class PublishedModel(ForwardModel):
    """Published weights as they are."""

    def save_pretrained(self, folder: str | Path, *, params: Parameters | None = None, prove: bool = True) -> None:
        """Write a directory that transformers loads, with a model card that holds the proof; see `publish`.

        One that is there already and not empty is refused.
        """
        params = self.params if params is None else params
        publish(self.converted, Path(folder).expanduser(), params=params, prove=prove)


class TokenizedModel(PublishedModel):
    """An encoder with its tokenizer."""

    def __init__(self, converted: ConvertedModel) -> None:
        self.encoder = TextEncoder(converted)
        super().__init__(converted, self.encoder.params)

    @property
    def params(self) -> Parameters:
        """Its parameters; trained ones can be assigned."""
        return self.encoder.params

    @params.setter
    def params(self, params: Parameters) -> None:
        self.encoder.params = params

    def _check_lengths(self, texts: list[str]) -> None:
        for text, ids in zip(texts, self.tokenizer.tokens(texts), strict=True):
            if len(ids) + 2 > self.encoder.longest:
                raise InputError(
                    f"the text {shown(text)} has {len(ids)} tokens; this encoder has positions for "
                    f"{self.encoder.longest - 2}"
                )


class TextModel(TokenizedModel):
    """A text encoder."""

    def _embed_texts(self, texts: list[str]) -> Float[np.ndarray, "N D"]:
        self._check_lengths(texts)
        return self.encoder.embed(texts)


class GridFeatureModel(TokenizedModel):
    """VisualBERT: an image is its grid features, float [G, C], as the detector of its training gives them."""

    def __init__(self, converted: ConvertedModel) -> None:
        super().__init__(converted)
        self._streams = jax.jit(
            lambda params, ids, mask, image: self.module.apply({"params": params}, ids, mask, image=image)[:2]
        )

    def _features(self, images: list[ImageLike], texts: list[str]) -> list[Features]:
        self._check_lengths(texts)
        ids, mask = self.encoder.encode(texts)
        size, rows = self.config.model.image.feature_size, []
        for image in images:
            image = grid_features(image, (None, size))
            many = np.broadcast_to(image, (len(texts), *image.shape))
            text, fused = jax.device_get(self._streams(self.params, ids, mask, many))
            every = np.ones(len(image), bool)
            rows += [Features(fused[row], text[row], every, mask[row]) for row in range(len(texts))]
        return rows


class ClassifierModel(PublishedModel):
    """A CNN with its classifier."""

    def __init__(self, converted: ConvertedModel, labels: tuple[str, ...] = ()) -> None:
        super().__init__(converted)
        self.labels = labels or converted.labels or tuple(f"class {c}" for c in range(converted.architecture.classes))
        """The names of the classes, in order."""
        self._probabilities = jax.jit(
            lambda params, image: jax.nn.softmax(self.module.apply({"params": params}, image)[1])
        )

    def _classify(self, images: list[ImageLike], top: int) -> list[Classes]:
        if not 1 <= top <= len(self.labels):
            raise InputError(f"top is {top}; expected 1 to {len(self.labels)}, the classes")
        results = []
        for first in range(0, len(images), AT_ONCE):
            rows = np.stack([self.processor(image) for image in images[first : first + AT_ONCE]])
            batch = filled(rows, bucket(len(rows), AT_ONCE))
            for probabilities in jax.device_get(self._probabilities(self.params, batch))[: len(rows)]:
                order = np.argsort(-probabilities, kind="stable")[:top]
                ranked = tuple((self.labels[index], float(probabilities[index])) for index in order)
                results.append(Classes(*ranked[0], ranked))
        return results


def published_model(converted: ConvertedModel) -> PublishedModel:
    """The model of published weights, with the methods that its parts allow."""
    architecture = converted.architecture
    if architecture.is_image_encoder:
        return ClassifierModel(converted) if architecture.classes else PublishedModel(converted)
    if not converted.tokenizer:
        return PublishedModel(converted)
    return GridFeatureModel(converted) if architecture.sees else TextModel(converted)
