"""Settings of dual encoders: an image and a text become vectors whose products say whether they belong together."""

from typing import Annotated, Literal

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import EfficientNet, VisionTransformer
from vlm_jax.config.image_text import ImageTextModel
from vlm_jax.settings.groups import CHOICE, Group
from vlm_jax.settings.rules import Count, Whole


class TextTower(Group):
    """The text side: embeddings, layers, and what becomes the vector of a text."""

    layers: Architecture
    """Tables and layers; its attention pattern is `causal` in CLIP."""
    embedding_norm: bool = True
    """A layer norm of the embeddings, as in BERT."""
    final_norm: bool = False
    """A layer norm after the last layer, as in CLIP."""
    pooling: Literal["first_token", "end_token", "last_token"] = "first_token"
    """The token that is projected: [CLS], the first end token, or the last one, which may be padding."""
    end_id: Whole | None = None
    """The id of the end token; without one it is where the largest id stands, as in CLIP's first files."""
    attends_to_padding: bool = False
    """Texts have `max_position_embeddings` tokens, and those of padding are read as any other, as in SigLIP."""
    projection_bias: bool = False
    """A bias of the projection, as in ALIGN and SigLIP."""


class DualEncoder(ImageTextModel):
    """CLIP, ALIGN (Jia et al. 2021), ChineseCLIP (Yang et al. 2022) or SigLIP (Zhai et al. 2023)."""

    image: Annotated[VisionTransformer | EfficientNet, CHOICE]
    text: TextTower
    image_head: Literal["projection", "attention_pooler", "mean", "max"] = "projection"
    """What makes the vector of an image: a projection of the class token, SigLIP's pooler, or the mean or maximum over
    the grid of ALIGN's CNN."""
    projection_size: Count = 512
    """Width of the vectors that are compared."""
    scale: Literal["logit_scale", "temperature"] = "logit_scale"
    """The learned number that cosines are scaled by: multiplied by its exponential, or divided by it, as in ALIGN."""
    logit_bias: bool = False
    """Add a learned number to the scaled cosines, as in SigLIP."""
    probability: Literal["softmax", "sigmoid"] = "softmax"
    """From the products of an image with texts to probabilities: one text of all, or each text by itself."""
