"""A published image transformer with the heads it was trained with."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vlm_jax.config import encoders
from vlm_jax.models.attention import CrossAttention
from vlm_jax.models.bert import ACTIVATIONS, layer_norm
from vlm_jax.models.pretrained import GridPooling, Part
from vlm_jax.models.pretrained_output import ImageClassifierOutput
from vlm_jax.models.recording import record
from vlm_jax.models.vit import ImageFeatures, VisionTransformer, layer_stack

Pooling = Literal[GridPooling, "class_token", "class_token_and_mean"]
"""What a classifier of images reads: the mean over the grid, or of a CNN the maximum; of a transformer the class token,
or both one after the other."""


class PretrainedImageOutput(NamedTuple):
    """What a published image transformer computes of B images; None where it has no such head."""

    features: Float[Array, "B F"]
    """What a classifier reads."""
    logits: Float[Array, "B A"] | None
    tokens: Float[Array, "B N D"]
    class_token: Float[Array, "B D"] | None
    pooled: Float[Array, "B D"] | None
    projected: Float[Array, "B P"] | None
    hidden_states: tuple[Float[Array, "B N D"], ...] | None = None
    """Of the embeddings and of every layer, before the last layer norm."""
    attentions: tuple[Float[Array, "B H N N"], ...] | None = None
    """The weights of every layer, query by key."""

    @property
    def last_hidden_state(self) -> Float[Array, "B N D"]:
        """The tokens."""
        return self.tokens

    @property
    def pooler_output(self) -> Float[Array, "B D"] | None:
        """The class token without a pooler, as in DINOv2 and CLIP."""
        return self.class_token if self.pooled is None else self.pooled

    @property
    def image_embeds(self) -> Float[Array, "B P"] | None:
        """CLIP's projection of the class token."""
        return self.projected


def image_vector(output: PretrainedImageOutput | ImageClassifierOutput) -> Float[Array, "B E"]:
    """One vector an image: CLIP's projection, the pooler's output, the class token, or what a classifier reads.

    It is the first of these that the model has; transformers calls it `image_embeds` or `pooler_output`.
    """
    vectors = (getattr(output, "image_embeds", None), output.pooler_output, getattr(output, "features", None))
    return next(x for x in vectors if x is not None)


class AttentionPooler(nn.Module):
    """One learned query that attends to every token, and a feed-forward layer: SigLIP's (Zhai et al. 2022, MAP)."""

    settings: encoders.VisionTransformer
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B D"]:
        layers, width = layer_stack(self.settings, self.dtype), self.settings.hidden_size
        query = nn.Embed(1, width, name="query").embedding
        query = jnp.broadcast_to(query.astype(self.dtype), (len(tokens), 1, 1, width))
        attention = CrossAttention(layers, name="attention")
        seen = jnp.ones((len(tokens), 1, tokens.shape[1]), bool)
        x = attention(query, attention.keys_and_values(tokens[:, None]), seen)
        inner = nn.Dense(layers.intermediate_size, dtype=self.dtype, name="intermediate")(layer_norm(layers, "norm")(x))
        x = x + nn.Dense(width, dtype=self.dtype, name="output")(ACTIVATIONS[layers.hidden_act](inner))
        return x[:, 0, 0]


class ImageHeads(nn.Module):
    """Those heads of an image transformer that `parts` names."""

    settings: encoders.VisionTransformer
    dtype: jnp.dtype
    parts: tuple[Part, ...]
    pooling: Pooling
    classes: int
    projection_size: int

    @nn.compact
    def __call__(self, features: ImageFeatures) -> PretrainedImageOutput:
        parts, class_token, mean = self.parts, features.class_token, features.mean
        pooled = projected = logits = None
        if "pooler" in parts:
            pooled = jnp.tanh(nn.Dense(self.settings.hidden_size, name="pooler")(class_token))
        if "attention_pooler" in parts:
            pooled = AttentionPooler(self.settings, self.dtype, name="attention_pooler")(features.tokens)
        if "projection" in parts:
            projected = nn.Dense(self.projection_size, use_bias=False, name="projection")(class_token)
        both = {"mean": (mean,), "class_token": (class_token,), "class_token_and_mean": (class_token, mean)}
        read = jnp.concatenate(both[self.pooling], axis=-1)
        if "classifier" in parts:
            logits = nn.Dense(self.classes, name="classifier")(read)
        if "distilled_classifiers" in parts:  # Touvron et al. 2021 (DeiT), section 4: both heads are averaged
            logits = nn.Dense(self.classes, name="class_token_classifier")(class_token)
            logits += nn.Dense(self.classes, name="distillation_classifier")(features.tokens[:, 1])
            logits /= 2
        return PretrainedImageOutput(read, logits, features.tokens, class_token, pooled, projected)


class PretrainedImageTransformer(nn.Module):
    """Pixels to everything that the published model computes; the encoder's parameters are those of `model.image`."""

    settings: encoders.VisionTransformer
    parts: tuple[Part, ...] = ()
    pooling: Pooling = "mean"
    classes: int = 0
    projection_size: int = 0
    dtype: str = "float32"

    def setup(self) -> None:
        dtype = jnp.dtype(self.dtype)
        self.image = VisionTransformer(self.settings, dtype)
        self.head = ImageHeads(self.settings, dtype, self.parts, self.pooling, self.classes, self.projection_size)

    def __call__(
        self, image: Float[Array, "B h w 3"], *, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> PretrainedImageOutput:
        """Tokens and heads, with the hidden states and attention weights of every layer where they are wanted."""
        if not (output_hidden_states or output_attentions):
            return self.head(self.image.features(image))
        with record() as recording:
            features = self.image.features(image)
        states = recording.states(features.tokens.shape[1])
        return self.head(features)._replace(
            hidden_states=states.hidden_states if output_hidden_states else None,
            attentions=states.attentions if output_attentions else None,
        )
