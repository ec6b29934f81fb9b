"""Published weights in use: vectors of texts, and classes of images."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from vlm_jax.config.encoders import PublishedCNN
from vlm_jax.data.settings import MAX_PIXELS
from vlm_jax.errors import InputError
from vlm_jax.inference.images import ImageLike, ImageProcessor, bucket, filled
from vlm_jax.inference.model import Model
from vlm_jax.inference.results import Classes
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.import_folder import write_import
from vlm_jax.weights.text_encoder import TextEncoder

AT_ONCE = 16


class PortedModel(Model):
    """Published weights as they are."""

    def __init__(self, converted: ConvertedModel) -> None:
        self.converted, self.source, self.module = converted, converted.origin.source, converted.module
        self.config, self.params = converted.architecture, jax.device_put(converted.params)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the directory of an import; one that is there already and not empty is refused."""
        write_import(self.converted, Path(folder).expanduser())


class TextModel(PortedModel):
    """A text encoder with its tokenizer."""

    def __init__(self, converted: ConvertedModel) -> None:
        super().__init__(converted)
        self.encoder = TextEncoder(converted)
        self.tokenizer = self.encoder.tokenizer

    def _embed_texts(self, texts: list[str]) -> Float[np.ndarray, "N D"]:
        return self.encoder.embed(texts)


class ClassifierModel(PortedModel):
    """A CNN with its classifier."""

    def __init__(self, converted: ConvertedModel, labels: tuple[str, ...] = ()) -> None:
        super().__init__(converted)
        self.labels = labels or converted.labels or tuple(f"class {c}" for c in range(converted.architecture.classes))
        """The names of the classes, in order."""
        self.processor = ImageProcessor(converted.architecture.input, max_pixels=MAX_PIXELS)
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


def ported_model(converted: ConvertedModel) -> PortedModel:
    """The model of published weights, with the methods that its parts allow."""
    architecture = converted.architecture
    if isinstance(architecture.model, PublishedCNN):
        return ClassifierModel(converted) if architecture.classes else PortedModel(converted)
    return TextModel(converted) if converted.tokenizer and not architecture.sees else PortedModel(converted)
