"""A model ready for use: its parts, and what it can do."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Never, TypeVar, overload

import numpy as np
from jaxtyping import Float

from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.inference.images import ImageLike, ImageProcessor, Images, as_images, as_pairs, as_texts
from vlm_jax.inference.results import Answer, Caption, Classes, Features, PromptImages, Similarity
from vlm_jax.types import Parameters
from vlm_jax.weights.filled_text import FilledText

if TYPE_CHECKING:
    from vlm_jax.config.run import Config
    from vlm_jax.models.image_tokenizer import ImageTokenizer
    from vlm_jax.models.pretrained import ImageClassifier, PretrainedModel
    from vlm_jax.models.vlm import VisualLanguageModel
    from vlm_jax.weights.family import ConvertedArchitecture

Result = TypeVar("Result")
METHODS = (
    "answer", "generate_captions", "generate_images", "features", "embed_texts", "embed_images", "fill_mask",
    "classify", "similarity",
)  # fmt: skip

TEMPLATE = "This is a photo of {}."
"""That of transformers' zero-shot-image-classification."""


class Model:
    """A model that `from_pretrained` returned.

    Every method takes one input and returns one result, or takes a list and returns a list. With several images
    and several texts, every text is used with every image: the results come image by image.
    """

    module: "VisualLanguageModel | ImageTokenizer | PretrainedModel | ImageClassifier"
    """The Flax module."""
    params: Parameters
    """Its parameters: `model.module.apply({"params": model.params}, ...)`."""
    config: "Config | ConvertedArchitecture"
    """The config of a run, or the architecture of published weights."""
    tokenizer: Tokenizer | None = None
    processor: ImageProcessor | None = None
    source: str
    """Where the model was read."""
    warnings: tuple[str, ...] = ()
    """What its user should know, such as a training that has not ended."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods that this model has."""
        return tuple(name for name in METHODS if getattr(type(self), f"_{name}") is not getattr(Model, f"_{name}"))

    @overload
    def answer(self, image: ImageLike, question: str) -> Answer: ...
    @overload
    def answer(self, image: Images, question: str | Sequence[str]) -> Answer | list[Answer]: ...
    def answer(self, image: Images, question: str | Sequence[str]) -> Answer | list[Answer]:
        """The answer to a question about an image."""
        answers = self._answer(as_images(image), as_texts(question, "question"))
        return _same_form(answers, image, question)

    @overload
    def generate_captions(self, images: ImageLike, num_beams: int = 5) -> Caption: ...
    @overload
    def generate_captions(self, images: Images, num_beams: int = 5) -> Caption | list[Caption]: ...
    def generate_captions(self, images: Images, num_beams: int = 5) -> Caption | list[Caption]:
        """The caption that a beam search finds for an image; one beam is greedy search."""
        return _same_form(self._generate_captions(as_images(images), num_beams), images)

    @overload
    def generate_images(self, prompt: str, num_images: int = 8, *, seed: int | None = None) -> PromptImages: ...
    @overload
    def generate_images(
        self, prompt: str | Sequence[str], num_images: int = 8, *, seed: int | None = None
    ) -> PromptImages | list[PromptImages]: ...
    def generate_images(
        self, prompt: str | Sequence[str], num_images: int = 8, *, seed: int | None = None
    ) -> PromptImages | list[PromptImages]:
        """Images of a prompt; the same seed gives the same images."""
        return _same_form(self._generate_images(as_texts(prompt, "prompt"), num_images, seed), prompt)

    @overload
    def features(self, image: ImageLike, text: str) -> Features: ...
    @overload
    def features(self, image: Images, text: str | Sequence[str]) -> Features | list[Features]: ...
    def features(self, image: Images, text: str | Sequence[str]) -> Features | list[Features]:
        """The fused hidden states of an image and a text, and their masks."""
        return _same_form(self._features(as_images(image), as_texts(text, "text")), image, text)

    def embed_texts(self, texts: str | Sequence[str]) -> Float[np.ndarray, "N D"] | Float[np.ndarray, " D"]:
        """The vector of a text as the files beside the weights pool it; of a list, one row a text."""
        vectors = self._embed_texts(as_texts(texts, "text"))
        return vectors[0] if isinstance(texts, str) else vectors

    def embed_images(self, images: Images) -> Float[np.ndarray, "N D"] | Float[np.ndarray, " D"]:
        """The vector of an image; of a list, one row an image.

        Its length is 1 where the model compares images with texts, and any elsewhere.
        """
        vectors = self._embed_images(as_images(images))
        return vectors if isinstance(images, (list, tuple)) else vectors[0]

    @overload
    def fill_mask(self, texts: str, top: int = 5, *, pairs: str | None = None) -> FilledText: ...
    @overload
    def fill_mask(
        self, texts: Sequence[str], top: int = 5, *, pairs: Sequence[str] | None = None
    ) -> list[FilledText]: ...
    def fill_mask(
        self, texts: str | Sequence[str], top: int = 5, *, pairs: str | Sequence[str] | None = None
    ) -> FilledText | list[FilledText]:
        """The most probable words for each mask of a text, or of a text and its second one in `pairs`."""
        listed = as_texts(texts, "text")
        return _same_form(self._fill_mask(listed, top, as_pairs(pairs, listed)), texts)

    @overload
    def classify(
        self,
        inputs: ImageLike,
        top: int | None = None,
        *,
        pairs: str | Sequence[str] | None = None,
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str | Sequence[str] = TEMPLATE,
    ) -> Classes: ...
    @overload
    def classify(
        self,
        inputs: Images,
        top: int | None = None,
        *,
        pairs: str | Sequence[str] | None = None,
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str | Sequence[str] = TEMPLATE,
    ) -> Classes | list[Classes]: ...
    def classify(
        self,
        inputs: Images,
        top: int | None = None,
        *,
        pairs: str | Sequence[str] | None = None,
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str | Sequence[str] = TEMPLATE,
    ) -> Classes | list[Classes]:
        """The most probable classes of an image, or of a text where the model reads texts: five, or all of fewer.

        `pairs` are the second texts, one for each text. A model that compares images with texts takes the names of the
        classes as `candidate_labels`, and puts each into `hypothesis_template`, or into each of several (both are
        transformers' names).
        """
        if candidate_labels is None:
            return _same_form(self._classify(inputs, top, pairs), inputs)
        if pairs is not None:
            raise InputError("candidate_labels are for images; leave pairs out")
        labels, templates = as_texts(candidate_labels, "candidate label"), as_texts(hypothesis_template, "template")
        return _same_form(self._classify_by_texts(as_images(inputs), labels, templates, top), inputs)

    def similarity(self, images: Images, texts: str | Sequence[str]) -> Similarity:
        """The products of every image with every text, and their probabilities; one image or text is a list of one."""
        return self._similarity(as_images(images), as_texts(texts, "text"))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model into a new folder, which `from_pretrained` reads: settings, vocabularies, safetensors."""
        raise NotImplementedError

    def _answer(self, images: list[ImageLike], questions: list[str]) -> list[Answer]:
        self._refuse("answer")

    def _generate_captions(self, images: list[ImageLike], num_beams: int) -> list[Caption]:
        self._refuse("generate_captions")

    def _generate_images(self, prompts: list[str], num_images: int, seed: int | None) -> list[PromptImages]:
        self._refuse("generate_images")

    def _features(self, images: list[ImageLike], texts: list[str]) -> list[Features]:
        self._refuse("features")

    def _embed_texts(self, texts: list[str]) -> Float[np.ndarray, "N D"]:
        self._refuse("embed_texts")

    def _embed_images(self, images: list[ImageLike]) -> Float[np.ndarray, "N D"]:
        self._refuse("embed_images")

    def _fill_mask(self, texts: list[str], top: int, pairs: list[str] | None) -> list[FilledText]:
        self._refuse("fill_mask")

    def _classify(self, inputs: Images, top: int | None, pairs: str | Sequence[str] | None) -> list[Classes]:
        self._refuse("classify")

    def _classify_by_texts(
        self, images: list[ImageLike], labels: list[str], templates: list[str], top: int | None
    ) -> list[Classes]:
        raise InputError(f"the model {self.source} compares no images with texts; leave candidate_labels out")

    def _similarity(self, images: list[ImageLike], texts: list[str]) -> Similarity:
        self._refuse("similarity")

    def _refuse(self, method: str) -> Never:
        others = f"it has {', '.join(self.methods)}" if self.methods else "it has module and params alone"
        raise InputError(f"the model {self.source} has no method {method}; {others}")


def _same_form(results: list[Result], *inputs: object) -> Result | list[Result]:
    """The one result where no input is a list."""
    return results if any(isinstance(value, (list, tuple)) for value in inputs) else results[0]
