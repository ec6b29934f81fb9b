"""CLIP and its relatives in use: images and texts as vectors of length 1, their products, and classes by name."""

from collections.abc import Callable, Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vlm_jax.config.architecture import Architecture
from vlm_jax.errors import InputError
from vlm_jax.inference.classes import number_of_classes, ranked
from vlm_jax.inference.forward import AnyArray, Arrays, Inputs
from vlm_jax.inference.images import ImageLike, as_images, as_texts, bucket, filled
from vlm_jax.inference.published import ImageModel
from vlm_jax.inference.results import Classes, Similarity
from vlm_jax.models.dual_encoder import DualEncoderOutput
from vlm_jax.types import Parameters
from vlm_jax.weights.converted_model import ConvertedModel

TEXTS_AT_ONCE = 64
PLACE = "{}"


class DualEncoderModel(ImageModel):
    """A model that compares images with texts; its vectors are transformers' features, divided by their lengths."""

    input_names = ("input_ids", "text_mask", "segments", "image")

    def __init__(self, converted: ConvertedModel) -> None:
        super().__init__(converted)
        self._settings = converted.architecture.model
        self._vectors = self._unit_vectors("image_features")
        self._text_vectors = self._unit_vectors("text_features")
        self._compare = jax.jit(
            lambda params, image, text: self.module.apply({"params": params}, image, text, method="compare")
        )
        self._activation = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}[self._settings.probability]

    def __call__(
        self,
        texts: str | Sequence[str] | Arrays | AnyArray | None = None,
        *,
        params: Parameters | None = None,
        **inputs: Unpack[Inputs],
    ) -> DualEncoderOutput:
        """Vectors of texts and of `images`, and their products; they have transformers' names.

        `texts` may be what `encode` returned. `params` stand in the place of `model.params`.
        """
        arrays = self._arrays(texts, inputs)
        if not {"image", "input_ids"} <= arrays.keys():
            raise InputError(f"{self.source} compares images with texts; give both: model(texts, images=...)")
        return self._forward(self.params if params is None else params, arrays, None)

    def encode(self, texts: str | Sequence[str] | None = None, **inputs: Unpack[Inputs]) -> Arrays:
        """The arrays that `model.module` takes, by its arguments' names, of texts, of `images`, or of both."""
        for name in ("pairs", "visual_token_type_ids"):
            if inputs.get(name) is not None:
                raise InputError(f"{self.source} compares images with texts; leave {name} out")
        images = inputs.get("images")
        arrays = {} if texts is None else self._text_arrays(as_texts(texts, "text"), inputs.get("length"))
        if images is not None:
            arrays["image"] = np.stack([self.processor(image) for image in as_images(images)])
        return arrays

    @property
    def _text_settings(self) -> Architecture:
        return self._settings.text.layers

    def _text_arrays(self, texts: list[str], length: int | None = None) -> dict[str, np.ndarray]:
        """Token ids and their mask; without one where the model reads padding, whose texts are as long as can be.

        Texts that are longer than a given `length` lose their end.
        """
        reads_padding = self._settings.text.attends_to_padding
        longest = self._texts.longest if reads_padding and length is None else length
        ids, mask = self._texts(texts, max_length=longest, truncate=length is not None)
        return {"input_ids": ids} if reads_padding else {"input_ids": ids, "text_mask": mask}

    def _unit_vectors(self, method: str) -> Callable[..., jax.Array]:
        """transformers' `get_image_features` or `get_text_features`, divided by their lengths."""

        def vectors(params: Parameters, *inputs: jax.Array, **texts: jax.Array) -> jax.Array:
            features = self.module.apply({"params": params}, *inputs, **texts, method=method)
            return features / jnp.linalg.norm(features, axis=-1, keepdims=True)

        return jax.jit(vectors)

    def _embed_texts(self, texts: list[str]) -> Float[np.ndarray, "N P"]:
        rows = []
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[first : first + TEXTS_AT_ONCE]
            arrays = self._text_arrays(some)
            arrays = self._padded(arrays) if "text_mask" in arrays else arrays
            batch = {name: filled(array, bucket(len(some), TEXTS_AT_ONCE)) for name, array in arrays.items()}
            rows.append(np.asarray(self._text_vectors(self.params, **batch), np.float32)[: len(some)])
        return np.concatenate(rows)

    def _similarity(self, images: list[ImageLike], texts: list[str]) -> Similarity:
        return self._compared(self._embed_images(images), self._embed_texts(texts))

    def _compared(self, image: Float[np.ndarray, "B P"], text: Float[np.ndarray, "N P"]) -> Similarity:
        logits = self._compare(self.params, image, text).logits_per_image
        return Similarity(*(np.asarray(x, np.float32) for x in (logits, self._activation(logits))))

    def _classify(self, inputs: object, top: int | None, pairs: object) -> list[Classes]:
        raise InputError(f"{self.source} compares images with texts; give the names of classes as candidate_labels")

    def _classify_by_texts(
        self, images: list[ImageLike], labels: list[str], templates: list[str], top: int | None
    ) -> list[Classes]:
        """A class has the mean of its templates' vectors, scaled to length 1 (Radford et al. 2021, section 3.1.4)."""
        for template in templates:
            if PLACE not in template:
                raise InputError(f"the template {template!r} has no place for a label; expected {PLACE} in it")
        top = number_of_classes(top, tuple(labels))
        texts = [template.replace(PLACE, label) for label in labels for template in templates]
        vectors = self._embed_texts(texts).reshape(len(labels), len(templates), -1).mean(axis=1)
        similarity = self._compared(self._embed_images(images), vectors)
        return [ranked(row, tuple(labels), top) for row in similarity.probabilities]
