"""What the tasks with a vision-language model share: fresh parameters and the inspection of the model."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import FeatureFolder
from vlm_jax.config.trunk import TextConfig
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.feature_folder import open_features
from vlm_jax.models.inspection import inspect, parameter_shapes
from vlm_jax.models.pixels import normalise_pixels
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.settings.changes import with_changes
from vlm_jax.tasks.base import Inspection, Predicted, Task
from vlm_jax.types import Parameters


class TextTask(Task[Predicted]):
    """A task with a vision-language model."""

    model: VisualLanguageModel
    text_name: ClassVar[str]
    """What a text is, such as `question`."""

    @classmethod
    def num_classes(cls, config: TextConfig) -> int:
        """The model does without classes."""
        return 1

    @classmethod
    def outputs(cls, config: TextConfig, classes: int | None) -> tuple[int, str]:
        """The number of classes, and what the head chooses from in words."""
        return 1, f"{config.architecture.vocab_size:,} tokens"

    @classmethod
    def input_size(cls, config: TextConfig) -> tuple[int, int]:
        """Height and width of the model's image, in pixels or image tokens."""
        return config.image.size

    @classmethod
    def parameter_shapes(cls, config: TextConfig) -> Parameters:
        """The parameters of the model."""
        model, sizes = cls._sizes(config, cls.num_classes(config))
        return parameter_shapes(model, **sizes)

    @classmethod
    def inspect(cls, config: TextConfig, classes: int | None) -> Inspection:
        """The model of a config; `classes` answers are assumed where the config leaves them to the data."""
        texts, (height, width) = config.training.texts_per_image, config.image.size
        classes, outputs = cls.outputs(config, classes)
        model, sizes = cls._sizes(config, classes)
        rows = inspect(model, **sizes)
        before = [
            f"{config.name}: {model.fusion}, {model.attention_pattern}, {model.head}, images by {model.image.name}",
            f"example: one image of {height} x {width} pixels, {cls.text_name}s: {texts} of "
            f"{config.model.text.max_length} tokens, {outputs}",
        ]
        return Inspection(before, rows, [f"{f'FLOPs of a {cls.text_name}':21s}{round(rows[0].flops / texts):,}"])

    def image_features(self, params: Parameters, pixels: UInt8[Array, "I h w 3"]) -> Float[Array, "I *grid C"]:
        """The outputs of the image encoder, of whose parameters alone they are."""
        image = normalise_pixels(pixels, self.encode.image)
        return self.model.bind({"params": params}).grid_features(image)

    @classmethod
    def _sizes(cls, config: TextConfig, classes: int) -> tuple[Architecture, dict[str, int | tuple[int, ...]]]:
        """The model, and the sizes of what it is called with."""
        model, image_size = config.architecture, cls.input_size(config)
        if isinstance(config.model.image, FeatureFolder):
            *image_size, channels = open_features(config.model.image.folder, config.image).shape
            model = with_changes(model, {"image.feature_size": channels})
        return model, {
            "image_size": tuple(image_size),
            "questions": config.training.texts_per_image,
            "classes": classes,
            "text_length": config.model.text.max_length,
        }


def init_params(model: VisualLanguageModel, encode: ExampleEncoder, key: Key[Array, ""]) -> Parameters:
    """Fresh float32 parameters of the model of one image and one text."""
    shape = encode.cached.shape if model.settings.image.kind == "features" else (*encode.image.size, 3)
    image = jnp.zeros((1, *shape))
    ids = jnp.zeros((1, 1, encode.max_length), jnp.int32)
    return model.init(key, image, ids, jnp.ones(ids.shape, bool))["params"]
