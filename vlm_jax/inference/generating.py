"""BLIP and GIT in use: captions of images, and answers to questions about them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Unpack

import jax
import numpy as np

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.blip import Blip
from vlm_jax.config.captioning import Beam, DecodingMethod, Greedy
from vlm_jax.decoding import Decoded, Decoder, Question, Special
from vlm_jax.errors import InputError
from vlm_jax.inference.forward import AnyArray, Arrays, ImageTextOutput, Inputs
from vlm_jax.inference.images import ImageLike, as_images, as_texts, bucket, filled
from vlm_jax.inference.published import AT_ONCE, PublishedModel
from vlm_jax.inference.results import Answer, Caption
from vlm_jax.tasks.caption import Hypothesis
from vlm_jax.types import Parameters
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.text_encoder import bucket_length

LONGEST_TEXT = 50
"""Tokens of a generated text at most, the end among them."""
TOP = 5  # answers beside the best one, and the beams that look for them


class ImageTextModel(PublishedModel):
    """A model that reads images with texts: `model(texts, images=...)`."""

    input_names = ("input_ids", "text_mask", "image", "decoder_input_ids", "decoder_mask")

    def __call__(
        self,
        texts: str | Sequence[str] | Arrays | AnyArray | None = None,
        *,
        params: Parameters | None = None,
        **inputs: Unpack[Inputs],
    ) -> ImageTextOutput:
        """The module's output of one text an image, or of the module's arguments by their names."""
        return self._forward(self.params if params is None else params, self._arrays(texts, inputs), None)

    def encode(self, texts: str | Sequence[str] | None = None, **inputs: Unpack[Inputs]) -> Arrays:
        """The arrays that `model.module` takes, of one text an image."""
        for name in ("pairs", "visual_token_type_ids"):
            if inputs.get(name) is not None:
                raise InputError(f"{self.source} reads one text an image; leave {name} out")
        if texts is None or inputs.get("images") is None:
            raise InputError(f"{self.source} reads images with texts; give both: model(texts, images=...)")
        listed, images = as_texts(texts, "text"), as_images(inputs["images"])
        if len(listed) != len(images):
            raise InputError(f"{len(listed)} texts and {len(images)} images came; give one image for each text")
        length = inputs.get("length")
        ids, mask = self._texts(listed, max_length=length, truncate=length is not None)
        pixels = np.stack([self.processor(image) for image in images])
        return {"input_ids": ids, "text_mask": mask, "image": pixels}

    @property
    def _text_settings(self) -> Architecture:
        model = self.config.model
        return model.text if isinstance(model, Blip) else model.trunk


class GeneratingModel(ImageTextModel):
    """A model that writes texts about images."""

    def __init__(self, converted: ConvertedModel) -> None:
        super().__init__(converted)
        self._decoder = lru_cache(None)(self._make_decoder)

    def _make_decoder(self, settings: DecodingMethod) -> Decoder:
        prompts = self._texts.prompts
        special = Special(prompts.begin_id, prompts.end_id, prompts.pad_id)
        return Decoder(self.module, settings, special, max_tokens=min(LONGEST_TEXT, self._texts.longest))

    def _hypotheses(
        self, images: list[ImageLike], settings: DecodingMethod, questions: Sequence[str] = ()
    ) -> list[tuple[Hypothesis, ...]]:
        """The texts about each image, best first; with `questions`, one an image, they are answers."""
        decode, rows = self._decoder(settings), []
        for first in range(0, len(images), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            pixels = np.stack([self.processor(image) for image in images[some]])
            size = bucket(len(pixels), AT_ONCE)
            question = self._question(questions[some], size) if questions else None
            decoded = decode({"params": self.params}, filled(pixels, size), question=question)
            rows += [self._spelled(decoded, row) for row in range(len(pixels))]
        return rows

    def _question(self, questions: Sequence[str], size: int) -> Question:
        longest = max(map(len, self._texts.tokenizer.tokens(questions))) + 2
        length = bucket_length(min(longest, self._texts.longest), self._texts.longest)
        return Question(*(filled(x, size) for x in self._texts(questions, max_length=length)))

    def _spelled(self, decoded: Decoded, row: int) -> tuple[Hypothesis, ...]:
        """The texts about one image in words."""
        decoded = jax.device_get(decoded)
        return tuple(
            Hypothesis(
                self._texts.tokenizer.decode(decoded.ids[row, place, :length]),
                float(decoded.log_probability[row, place]),
                float(decoded.score[row, place]),
                tuple(map(float, decoded.token_log_probability[row, place, :length])),
            )
            for place, length in enumerate(decoded.length[row])
            if length
        )


class CaptionerModel(GeneratingModel):
    """BLIP's captioning model, or GIT."""

    def _generate_captions(self, images: list[ImageLike], num_beams: int) -> list[Caption]:
        return [Caption(texts) for texts in self._hypotheses(images, beams(num_beams))]


class AnswererModel(GeneratingModel):
    """BLIP's model of questions, which writes its answers."""

    def _answer(self, images: list[ImageLike], questions: list[str]) -> list[Answer]:
        pairs = [(image, question) for image in images for question in questions]
        texts = self._hypotheses([image for image, _ in pairs], beams(TOP, TOP), [question for _, question in pairs])
        return [_as_answer(question, answers) for (_, question), answers in zip(pairs, texts, strict=True)]


def _as_answer(question: str, answers: tuple[Hypothesis, ...]) -> Answer:
    top = tuple((answer.text, float(np.exp(answer.log_probability))) for answer in answers)
    return Answer(question, *top[0], top)


def beams(num_beams: int, returned: int = 1) -> DecodingMethod:
    """A beam search with the defaults of transformers' `generate`; one beam is greedy."""
    if num_beams < 1:
        raise InputError(f"num_beams is {num_beams}; expected 1 or more")
    if num_beams == 1:
        return Greedy()
    return Beam(num_beams=num_beams, num_return_sequences=returned, length_penalty=1.0, early_stopping=False)
