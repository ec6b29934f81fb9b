"""Settings of dual encoders: an image and a text become vectors whose products say whether they belong together."""

from typing import Literal

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import VisionTransformer
from vlm_jax.config.image_text import ImageTextModel
from vlm_jax.settings.groups import Group
from vlm_jax.settings.rules import Count, Whole


class TextTower(Group):
    """The text side: embeddings, layers, and what becomes the vector of a text."""

    layers: Architecture
    """Tables and layers; its attention pattern is `causal` in CLIP."""
    embedding_norm: bool = True
    """A layer norm of the embeddings, as in BERT."""
    final_norm: bool = False
    """A layer norm after the last layer, as in CLIP."""
    pooling: Literal["first_token", "end_token"] = "first_token"
    """The token that is projected: [CLS], or the first end token."""
    end_id: Whole | None = None
    """The id of the end token; without one it is where the largest id stands, as in CLIP's first files."""


class DualEncoder(ImageTextModel):
    """CLIP (Radford et al. 2021)."""

    image: VisionTransformer
    text: TextTower
    image_head: Literal["projection"] = "projection"
    """What makes the vector of an image: a projection of the class token."""
    projection_size: Count = 512
    """Width of the vectors that are compared."""
