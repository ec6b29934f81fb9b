"""BERT's embedding sum and its post-norm layer (Devlin et al. 2019), with its constants."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from vlm_jax.config import Model, TextEncoder
from vlm_jax.models.attention import CrossAttention, Memory, OwnMemory, SelfAttention, dropout, fold_keys

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),  # BERT's erf form; JAX defaults to tanh
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}
EMBEDDING_INIT = nn.initializers.normal(0.02)  # BERT's initializer_range


def layer_norm(settings: Model, name: str) -> nn.LayerNorm:
    """A layer norm with BERT's epsilon (1e-12, not Flax's 1e-6); statistics are float32."""
    return nn.LayerNorm(epsilon=settings.norm_epsilon, dtype=jnp.dtype(settings.compute_dtype), name=name)


class TextEmbeddings(nn.Module):
    """Words + positions + segments, summed: BERT's embedding layer up to its layer norm.

    Without `segments` every token is of the first one. Positions count from `first_position`: RoBERTa's from 2.
    """

    settings: TextEncoder

    def setup(self) -> None:
        s = self.settings
        self.word = nn.Embed(s.vocabulary_size, s.width, embedding_init=EMBEDDING_INIT)
        self.position = nn.Embed(s.max_positions, s.width, embedding_init=EMBEDDING_INIT)
        if s.segments:
            self.segment = nn.Embed(s.segments, s.width, embedding_init=EMBEDDING_INIT)

    def __call__(
        self, input_ids: Int[Array, "I K T"], segments: Int[Array, "I K T"] | None = None
    ) -> Float[Array, "I K T E"]:
        s = self.settings
        words = self.word(input_ids)
        positions = self.position(s.first_position + jnp.arange(input_ids.shape[-1]))[None, None]
        if not s.segments:
            return words + positions
        if segments is None:
            segments = jnp.zeros((1, 1, input_ids.shape[-1]), jnp.int32)
        return words + self.segment(segments) + positions

    def scores(self, x: Float[Array, "*n E"]) -> Float[Array, "*n V"]:
        """The product with every row of the word table: a decoder tied to it."""
        return self.word.attend(x)


def _feed_forward(
    settings: Model, x: Float[Array, "I K n D"], keys: Key[Array, " I"] | None
) -> Float[Array, "I K n D"]:
    """Feed-forward, residual and layer norm, with parameters of the layer that calls."""
    dtype = jnp.dtype(settings.compute_dtype)
    hidden = ACTIVATIONS[settings.activation](nn.Dense(settings.mlp_width, dtype=dtype, name="intermediate")(x))
    hidden = nn.Dense(settings.width, dtype=dtype, name="output")(hidden)
    return layer_norm(settings, "output_norm")(x + dropout(hidden, settings.dropout, keys, 2))


class BertLayer(nn.Module):
    """Self-attention and feed-forward, each followed by residual and layer norm (post-norm), at positions `asking`."""

    settings: Model

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "I K N D"],
        mask: Bool[Array, "I k N P"],
        memory: Memory | None = None,
        keys: Key[Array, " I"] | None = None,
        asking: slice = slice(None),
    ) -> tuple[Float[Array, "I K n D"], OwnMemory]:
        s = self.settings
        mixed, own = SelfAttention(s, name="attention")(x, mask, memory, keys, asking)
        x = layer_norm(s, "attention_norm")(x[:, :, asking] + dropout(mixed, s.dropout, keys, 1))
        return _feed_forward(s, x, keys), own


class CrossLayer(nn.Module):
    """Self-attention, attention to another stream, feed-forward, each post-norm: `BertLayer` with cross-attention.

    A stream of one slot that asks one of K slots becomes K slots there.
    """

    settings: Model

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "I k N D"],
        mask: Bool[Array, "I m N N"],
        source: Float[Array, "I s M D"],
        source_mask: Bool[Array, "I s M"],
        keys: Key[Array, " I"] | None = None,
        asking: slice = slice(None),
    ) -> Float[Array, "I K n D"]:
        s = self.settings
        mixed, _ = SelfAttention(s, name="attention")(x, mask, None, keys, asking)
        x = layer_norm(s, "attention_norm")(x[:, :, asking] + dropout(mixed, s.dropout, keys, 1))
        x = jnp.broadcast_to(x, (len(x), max(x.shape[1], source.shape[1]), *x.shape[2:]))
        mixed = CrossAttention(s, name="cross_attention")(x, source, source_mask, fold_keys(keys, 3))
        x = layer_norm(s, "cross_attention_norm")(x + dropout(mixed, s.dropout, keys, 3))
        return _feed_forward(s, x, keys)
