"""Settings of BLIP: an image transformer, and BERTs whose layers attend to its tokens."""

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import VisionTransformer
from vlm_jax.config.image_text import ImageTextModel
from vlm_jax.settings.rules import Count, Whole


class Blip(ImageTextModel):
    """BLIP (Li et al. 2022)."""

    image: VisionTransformer
    text: Architecture
    """Tables and layers of each text side; encoder and decoder are alike, with parameters of their own."""
    projection_size: Count = 256
    """Width of the vectors that a retrieval model compares."""
    bos_token_id: Whole = 30522
    """Before the first token of a caption or an answer: [DEC]."""
    sep_token_id: Whole = 102
    """After the last one: [SEP]."""
    pad_token_id: Whole = 0
    """Padding; the row of the word tables that gets no gradient from texts."""
