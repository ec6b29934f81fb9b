"""What a model returns to its user: one small dataclass a kind of result, with probabilities and warnings."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from vlm_jax.tasks.caption import Hypothesis

Ranked = tuple[tuple[str, float], ...]
"""Texts with their probabilities, the most probable first."""


@dataclass(frozen=True)
class Answer:
    """The answer to one question about one image."""

    question: str
    text: str
    """The most probable answer."""
    probability: float
    top: Ranked
    """The five most probable answers."""
    warnings: tuple[str, ...] = ()
    """What the model did not read of the question."""


@dataclass(frozen=True)
class Caption:
    """The captions of one image."""

    hypotheses: tuple[Hypothesis, ...]
    """Each caption with its log-probability, the best first."""
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The best caption."""
        return self.hypotheses[0].text

    @property
    def log_probability(self) -> float:
        """Of the best caption: the sum over its tokens."""
        return self.hypotheses[0].log_probability

    @property
    def probability(self) -> float:
        """Of the best caption among all texts."""
        return math.exp(self.log_probability)


@dataclass(frozen=True)
class PromptImages:
    """The images that were generated for one prompt."""

    prompt: str
    images: UInt8[np.ndarray, "S h w 3"]
    warnings: tuple[str, ...] = ()
    """What the model did not read of the prompt."""


@dataclass(frozen=True)
class Features:
    """The hidden states of one image and one text after the fusion; a mask is False at padding."""

    image: Float[np.ndarray, "G D"]
    """One vector a grid position, rows first."""
    text: Float[np.ndarray, "T D"]
    """One vector a token; the first is [CLS]."""
    image_mask: Bool[np.ndarray, " G"]
    text_mask: Bool[np.ndarray, " T"]
    warnings: tuple[str, ...] = ()
    """What the model did not read of the text."""


@dataclass(frozen=True)
class Similarity:
    """How well B images and N texts belong together."""

    logits_per_image: Float[np.ndarray, "B N"]
    """The scaled cosines."""
    probabilities: Float[np.ndarray, "B N"]
    """That an image belongs to a text: of each image among all texts, or in SigLIP of each pair by itself."""


@dataclass(frozen=True)
class Classes:
    """The class of one image or text."""

    label: str
    """The most probable class."""
    probability: float
    top: Ranked
    """The most probable classes."""
    warnings: tuple[str, ...] = ()
