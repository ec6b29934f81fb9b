"""Heads: from fused streams to logits, always float32."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from vlm_jax.config import Model
from vlm_jax.models.attention import dropout


class AnswerHead(nn.Module):
    """BERT's pooler (dense and tanh on [CLS]) and a linear classifier over the answers."""

    settings: Model
    classes: int

    @nn.compact
    def __call__(self, first: Float[Array, "I K D"], keys: Key[Array, " I"] | None = None) -> Float[Array, "I K A"]:
        s = self.settings
        pooled = jnp.tanh(nn.Dense(s.width, dtype=jnp.dtype(s.compute_dtype), name="pooler")(first))
        pooled = dropout(pooled, s.dropout, keys, 0)
        return nn.Dense(self.classes, dtype=jnp.float32, name="classifier")(pooled)


class EveryPositionHead(nn.Module):
    """One untied linear classifier at every position it is given."""

    settings: Model
    classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b D"], keys: Key[Array, " I"] | None = None) -> Float[Array, "*b A"]:
        dtype = jnp.dtype(self.settings.compute_dtype)
        return nn.Dense(self.classes, dtype=dtype, name="classifier")(x).astype(jnp.float32)


HEADS = {"answers": AnswerHead, "every_position": EveryPositionHead}
