"""Heads: from fused streams to logits, always float32.

Every head maps `(image, text, image_mask, keys)` to the logits of `model.head`; `answer` gives those of a whole text.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key

from vlm_jax.config import Model
from vlm_jax.models.attention import dropout
from vlm_jax.models.bert import ACTIVATIONS

Image = Float[Array, "I k g D"]
Text = Float[Array, "I K t D"]
ImageMask = Bool[Array, "I G"]
Keys = Key[Array, " I"] | None


class Head(nn.Module):
    """What every head takes."""

    settings: Model
    classes: int

    def answer(self, image: Image, text: Text, image_mask: ImageMask, keys: Keys = None) -> Float[Array, "I K A"]:
        """The logits of a text as a whole: what `__call__` gives, unless a head says otherwise."""
        return self(image, text, image_mask, keys)


class AnswerHead(Head):
    """BERT's pooler (dense and tanh on [CLS]) and a linear classifier over the answers."""

    @nn.compact
    def __call__(self, image: Image, text: Text, image_mask: ImageMask, keys: Keys = None) -> Float[Array, "I K A"]:
        s = self.settings
        pooled = jnp.tanh(nn.Dense(s.width, dtype=jnp.dtype(s.compute_dtype), name="pooler")(text[:, :, 0]))
        pooled = dropout(pooled, s.dropout, keys, 0)
        return nn.Dense(self.classes, dtype=jnp.float32, name="classifier")(pooled)


class JoinedHead(Head):
    """[CLS] and the mean of the visible image cells, each through a pooler, joined, through one hidden layer.

    Joined by their product (Antol et al. 2015, section 4) or side by side.
    """

    @nn.compact
    def __call__(self, image: Image, text: Text, image_mask: ImageMask, keys: Keys = None) -> Float[Array, "I K A"]:
        s = self.settings
        dtype = jnp.dtype(s.compute_dtype)
        visible = image_mask[:, None, :, None].astype(image.dtype)
        mean = jnp.sum(image * visible, axis=2) / jnp.maximum(jnp.sum(visible, axis=2), 1)
        mean = jnp.tanh(nn.Dense(s.width, dtype=dtype, name="image_pooler")(mean))
        first = jnp.tanh(nn.Dense(s.width, dtype=dtype, name="text_pooler")(text[:, :, 0]))
        mean = jnp.broadcast_to(mean, first.shape)
        joined = mean * first if s.head == "product" else jnp.concatenate([mean, first], axis=-1)
        hidden = ACTIVATIONS[s.activation](nn.Dense(s.mlp_width, dtype=dtype, name="hidden")(joined))
        return nn.Dense(self.classes, dtype=jnp.float32, name="classifier")(dropout(hidden, s.dropout, keys, 0))


class EveryPositionHead(Head):
    """One untied linear classifier at every position, the image's first."""

    def setup(self) -> None:
        self.classifier = nn.Dense(self.classes, dtype=jnp.dtype(self.settings.compute_dtype))

    def __call__(self, image: Image, text: Text, image_mask: ImageMask, keys: Keys = None) -> Float[Array, "I K N A"]:
        wide = jnp.broadcast_to(image, (*text.shape[:2], *image.shape[2:]))
        return self.classifier(jnp.concatenate([wide, text], axis=2)).astype(jnp.float32)

    def answer(self, image: Image, text: Text, image_mask: ImageMask, keys: Keys = None) -> Float[Array, "I K A"]:
        """The logits at [CLS] alone."""
        return self.classifier(text[:, :, 0]).astype(jnp.float32)


HEADS = {
    "answers": AnswerHead,
    "product": JoinedHead,
    "concatenation": JoinedHead,
    "every_position": EveryPositionHead,
}
