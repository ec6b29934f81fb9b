"""What a model with a trunk is made of, whatever its task: modules, converted weights and decoding read this alone."""

from typing import Literal

from vlm_jax.config.encoders import ImageEncoder
from vlm_jax.config.layers import ActivationAndNorm, LayerStack
from vlm_jax.settings.rules import Count, Whole

AttentionPattern = Literal[
    "bidirectional", "image_to_text", "prefix", "causal", "text_to_image", "autoregressive", "dual_encoder"
]
Head = Literal["cls", "token_before_sep", "product", "concatenation", "per_token", "lm", "image_tokens"]


class Layout(ActivationAndNorm):
    """Tables, norms and activation that pretrained weights prescribe; the defaults are BERT's."""

    max_position_embeddings: Count = 512
    """Rows of the text's position table."""
    first_position: Whole = 0
    """Row of the position table that the first token has; 2 in RoBERTa."""
    type_vocab_size: Whole = 2
    """Rows of the token type table, 0 being the text's; with 0 there is no such table (DistilBERT)."""
    max_image_positions: Count = 256
    """Rows of each of the image's position tables."""
    modality_type_vocab_size: Count = 1
    """Rows of the image's type table, the last of which is used (VisualBERT has two)."""


class Architecture(LayerStack, Layout):
    """A vision-language model: encoders, trunk and head."""

    vocab_size: Count = 256
    """Rows of the token table."""
    text_feature_size: Count = 128
    """Width of the text embeddings (E)."""
    project_embeddings: bool = False
    """Whether the text's layer norm has the width of its embeddings, and a projection follows (ALBERT, ELECTRA)."""
    relative_attention_num_buckets: Whole = 0
    """Buckets of relative positions, whose biases all layers share (MPNet); 0 where there are none."""
    num_hidden_groups: Whole = 0
    """Layers with parameters of their own, each used several times in turn (ALBERT); 0 where every one has its own."""
    image: ImageEncoder
    """The image side."""
    fusion: str = "concat"
    """Where image and text meet: a name of `models.fusion.FUSIONS`."""
    attention_pattern: AttentionPattern = "bidirectional"
    """Which side attends to which."""
    head: Head = "cls"
    """What the head reads of the trunk."""
    convolution: Literal["auto", "direct", "products"] = "auto"
    """How convolutions are computed."""
