"""What a model with a trunk is made of, whatever its task: modules, converted weights and decoding read this alone."""

from typing import Literal

from pydantic import model_validator

from vlm_jax.config.encoders import ImageEncoder
from vlm_jax.settings.groups import Group
from vlm_jax.settings.rules import Count, Positive, ShareBelowOne, Whole, nearest_multiple

AttentionPattern = Literal[
    "bidirectional", "image_to_text", "prefix", "causal", "text_to_image", "autoregressive", "dual_encoder"
]
Head = Literal["cls", "token_before_sep", "product", "concatenation", "per_token", "lm", "image_tokens"]


class Layout(Group):
    """Tables, norms and activation that pretrained weights prescribe; the defaults are BERT's."""

    hidden_act: Literal["gelu", "gelu_new", "relu"] = "gelu"
    """Feed-forward activation; `gelu` is the exact one, as in BERT, `gelu_new` the tanh approximation."""
    layer_norm_eps: Positive = 1e-12
    """Epsilon of every layer norm."""
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


class Layers(Group):
    """The trunk's layers."""

    hidden_size: Count = 128
    """Width of the trunk (D)."""
    intermediate_size: Count = 512
    """Width of the feed-forward layers."""
    num_attention_heads: Count = 4
    """Attention heads."""
    num_layers: Count = 2
    """Layers of the trunk."""
    hidden_dropout_prob: ShareBelowOne = 0.0
    """Dropout after embeddings, attention and feed-forward layers."""
    attention_probs_dropout_prob: ShareBelowOne = 0.0
    """Dropout on attention weights."""
    use_qk_norm: bool = False
    """An RMS norm of each head's queries and keys (Henry et al. 2020, Dehghani et al. 2023)."""

    @model_validator(mode="after")
    def check_heads(self) -> "Layers":
        """The heads share the hidden size."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}; "
                f"the nearest hidden size is {nearest_multiple(self.hidden_size, self.num_attention_heads)}"
            )
        return self


class Architecture(Layers, Layout):
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
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and products; parameters, softmax, norms and loss stay float32."""
    remat: bool = False
    """Recompute each layer in the backward pass."""
    scan_layers: bool = False
    """Compile one layer and loop over it."""
