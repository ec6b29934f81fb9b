"""The task image_tokenizer: an image as a small grid of image tokens, and back."""

from typing import Annotated, Literal

from pydantic import model_validator

from vlm_jax.config.optimizers import SGD, AdamW
from vlm_jax.config.quantizers import ImageTokenizerSettings
from vlm_jax.config.run import Compute, Config, Training
from vlm_jax.data.data_sets import ImageSet
from vlm_jax.data.datasets.shape_scenes import ShapeScenes
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.settings.groups import CHOICE
from vlm_jax.settings.rules import NotNegative


class NoisyImageTokenizer(ImageTokenizerSettings):
    """Encoder, quantizer and decoder."""

    noise: NotNegative = 0.0
    """Noise (levels of 255, standard deviation) on the training images of the encoder: tokens follow it less."""


class ImageTokenizer(Config):
    """An image as a small grid of image tokens, and back."""

    task: Literal["image_tokenizer"] = "image_tokenizer"
    data: Annotated[ImageSet, CHOICE] = ShapeScenes()
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
