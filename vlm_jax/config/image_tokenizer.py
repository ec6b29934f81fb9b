"""The task image_tokenizer: an image as a small grid of image tokens, and back."""

from typing import Annotated, Literal

from pydantic import model_validator

from vlm_jax.config.data import (
    CocoImages,
    EasyVQA,
    EmojiImages,
    JsonLinesImages,
    KarpathyImages,
    ShapeScenes,
    SortOfClevr,
    VQAv2Images,
)
from vlm_jax.config.images import AugmentedImages
from vlm_jax.config.optimizers import SGD, AdamW
from vlm_jax.config.quantizers import ImageTokenizerSettings
from vlm_jax.config.rules import NotNegative
from vlm_jax.config.run import Compute, Config, Training
from vlm_jax.settings.groups import CHOICE


class NoisyImageTokenizer(ImageTokenizerSettings):
    """Encoder, quantizer and decoder."""

    noise: NotNegative = 0.0
    """Noise (levels of 255, standard deviation) on the training images of the encoder: tokens follow it less."""


class ImageTokenizer(Config):
    """An image as a small grid of image tokens, and back."""

    task: Literal["image_tokenizer"] = "image_tokenizer"
    data: Annotated[
        ShapeScenes | EasyVQA | SortOfClevr | JsonLinesImages | VQAv2Images | CocoImages | KarpathyImages | EmojiImages,
        CHOICE,
    ] = ShapeScenes()
    """The data set."""
    image: AugmentedImages = AugmentedImages()
    image_tokenizer: NoisyImageTokenizer = NoisyImageTokenizer()
    optimizer: Annotated[AdamW | SGD, CHOICE] = AdamW()
    """How gradients become updates."""
    training: Training = Training()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def check_size(self) -> "ImageTokenizer":
        """The image divides into tokens."""
        self.image_tokenizer.check_size(self.image.size)
        return self
