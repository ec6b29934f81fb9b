"""Published weights in use: vectors and classes of texts and of images, and masked words."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from vlm_jax.errors import InputError, shown
from vlm_jax.inference.classes import class_activation, class_names, number_of_classes, ranked
from vlm_jax.inference.forward import ForwardModel
from vlm_jax.inference.images import ImageLike, Images, as_images, as_pairs, as_texts, bucket, filled, grid_features
from vlm_jax.inference.results import Classes, Features
from vlm_jax.models.vit_heads import image_vector
from vlm_jax.types import Parameters
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.filled_text import FilledText
from vlm_jax.weights.publish import publish
from vlm_jax.weights.sentences import sentence_settings
from vlm_jax.weights.text_encoder import TextEncoder
from vlm_jax.weights.text_processor import TextProcessor

AT_ONCE = 16


class PublishedModel(ForwardModel):
    """Published weights as they are."""

    def save_pretrained(self, folder: str | Path, *, params: Parameters | None = None, prove: bool = True) -> None:
        """Write a directory that transformers loads, with a model card that holds the proof; see `publish`.

        One that is there already and not empty is refused.
        """
        params = self.params if params is None else params
        publish(self.converted, Path(folder).expanduser(), params=params, prove=prove)

    @cached_property
    def _texts(self) -> TextProcessor:
        """The texts of a model that reads images too; `InputError` where no tokenizer lies beside it."""
        files = self.converted.tokenizer
        if not files:
            raise InputError(f"no tokenizer lies beside {self.source}, which reads texts; put it there")
        positions = self._text_settings.max_position_embeddings
        family, config = self.converted.family.name, self.converted.config
        return TextProcessor.load(files[0].parent, family, config, positions=positions)


class TokenizedModel(PublishedModel):
    """An encoder with its tokenizer."""

    def __init__(self, converted: ConvertedModel) -> None:
        self.encoder = TextEncoder(converted)
        super().__init__(converted, self.encoder.params, self.encoder.tokenizer)

    @property
    def params(self) -> Parameters:
        """Its parameters; trained ones can be assigned."""
        return self.encoder.params

    @params.setter
    def params(self, params: Parameters) -> None:
        self.encoder.params = params

    def _check_lengths(self, texts: list[str], pairs: list[str] | None = None) -> None:
        frame = 2 if pairs is None else 3 + self.tokenizer.doubles_sep
        what = "" if pairs is None else " with its second text"
        for text, length in zip(texts, self.encoder.lengths(texts, pairs), strict=True):
            if length > self.encoder.longest:
                raise InputError(
                    f"the text {shown(text)}{what} has {length - frame} tokens; this encoder has positions for "
                    f"{self.encoder.longest - frame}"
                )


class TextModel(TokenizedModel):
    """A text encoder."""

    def _embed_texts(self, texts: list[str]) -> Float[np.ndarray, "N D"]:
        if self._max_seq_length is None:
            self._check_lengths(texts)
        return self.encoder.embed(texts)

    @cached_property
    def _max_seq_length(self) -> int | None:
        """Where the files of sentence-transformers have one, longer texts lose their end."""
        return sentence_settings(self.converted.settings_files, self.config.model.hidden_size).longest


class MaskedWordModel(TextModel):
    """A text encoder with its masked-word head."""

    def _fill_mask(self, texts: list[str], top: int, pairs: list[str] | None) -> list[FilledText]:
        self._check_lengths(texts, pairs)
        seconds = pairs or [None] * len(texts)
        return [self.encoder.fill_mask(text, top=top, pair=pair) for text, pair in zip(texts, seconds, strict=True)]


class TextClassifierModel(TextModel):
    """A text encoder with a classifier of texts."""

    def __init__(self, converted: ConvertedModel) -> None:
        super().__init__(converted)
        self.labels = class_names(converted)
        """The names of the classes, in order."""
        self._activation = class_activation(converted)

    def _classify(self, inputs: Images, top: int | None, pairs: str | Sequence[str] | None) -> list[Classes]:
        texts = as_texts(inputs, "text")
        seconds = as_pairs(pairs, texts)
        self._check_lengths(texts, seconds)
        top = number_of_classes(top, self.labels)
        probabilities = np.asarray(self._activation(self.encoder.class_logits(texts, seconds)))
        return [ranked(row, self.labels, top) for row in probabilities]


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


class ImageModel(PublishedModel):
    """An image encoder."""

    def __init__(self, converted: ConvertedModel) -> None:
        super().__init__(converted)
        self._vectors = jax.jit(lambda params, image: image_vector(self.module.apply({"params": params}, image)))

    def _embed_images(self, images: list[ImageLike]) -> Float[np.ndarray, "N D"]:
        return np.concatenate(list(self._rows(self._vectors, images)))

    def _rows(self, function: Callable[..., jax.Array], images: list[ImageLike]) -> Iterator[Float[np.ndarray, "b D"]]:
        """`function(params, image)` of a few images at a time."""
        for first in range(0, len(images), AT_ONCE):
            rows = np.stack([self.processor(image) for image in images[first : first + AT_ONCE]])
            batch = filled(rows, bucket(len(rows), AT_ONCE))
            yield np.asarray(function(self.params, batch), np.float32)[: len(rows)]


class ClassifierModel(ImageModel):
    """An image encoder with its classifier."""

    def __init__(self, converted: ConvertedModel, labels: tuple[str, ...] = ()) -> None:
        super().__init__(converted)
        self.labels = labels or class_names(converted)
        """The names of the classes, in order."""
        activation = class_activation(converted)
        self._probabilities = jax.jit(
            lambda params, image: activation(self.module.apply({"params": params}, image).logits)
        )

    def _classify(self, inputs: Images, top: int | None, pairs: str | Sequence[str] | None) -> list[Classes]:
        if pairs is not None:
            raise InputError(f"{self.source} is an image encoder and reads no texts; leave pairs out")
        top = number_of_classes(top, self.labels)
        batches = self._rows(self._probabilities, as_images(inputs))
        return [ranked(row, self.labels, top) for batch in batches for row in batch]
