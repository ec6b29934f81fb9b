"""Heads: from fused streams to logits, always float32.

Every head maps `(fused, token_scores, keys)` to logits. `token_scores` is the product with the word table, to which
a language model's output is tied.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key

from vlm_jax.config.architecture import Architecture
from vlm_jax.models.attention import dropout
from vlm_jax.models.bert import ACTIVATIONS, layer_norm
from vlm_jax.models.dtypes import at_least_float32
from vlm_jax.models.image_token_vectors import ImageTokenVectors


class Fused(NamedTuple):
    """Image and text after the fusion, and which of their positions are visible."""

    image: Float[Array, "I k g D"]
    text: Float[Array, "I K t D"]
    image_mask: Bool[Array, "I G"]
    text_mask: Bool[Array, "I K T"]


Keys = Key[Array, " I"] | None
Scores = Callable[[Float[Array, "*n E"]], Float[Array, "*n V"]]


class Head(nn.Module):
    """What every head takes."""

    settings: Architecture
    classes: int

    reads_first: ClassVar[bool] = True
    """Whether `task_logits` reads no text position but the first: the fusion then computes no other."""

    def task_logits(self, fused: Fused, token_scores: Scores, keys: Keys = None) -> Float[Array, "I K *s A"]:
        """The logits that the task's loss reads: those of `__call__`, unless a head says otherwise."""
        return self(fused, token_scores, keys)


class ClsHead(Head):
    """BERT's pooler (dense and tanh on [CLS]) and a linear classifier over the answers."""

    @nn.compact
    def __call__(self, fused: Fused, token_scores: Scores, keys: Keys = None) -> Float[Array, "I K A"]:
        s = self.settings
        pooled = dropout(pool(s, fused.text), s.hidden_dropout_prob, keys, 0)
        return nn.Dense(self.classes, dtype=at_least_float32(self.settings.dtype), name="classifier")(pooled)


class TokenBeforeSepHead(Head):
    """A linear classifier on the token before the last visible one: `VisualBertForQuestionAnswering` reads it there."""

    reads_first: ClassVar[bool] = False

    @nn.compact
    def __call__(self, fused: Fused, token_scores: Scores, keys: Keys = None) -> Float[Array, "I K A"]:
        last = jnp.sum(fused.text_mask, axis=-1) - 2
        word = jnp.take_along_axis(fused.text, last[:, :, None, None], axis=2)[:, :, 0]
        word = dropout(word, self.settings.hidden_dropout_prob, keys, 0)
        return nn.Dense(self.classes, dtype=at_least_float32(self.settings.dtype), name="classifier")(word)


class JoinedHead(Head):
    """[CLS] and the mean of the visible grid features, each through a pooler, joined, through one dense layer.

    Joined by their product (Antol et al. 2015, section 4) or side by side.
    """

    @nn.compact
    def __call__(self, fused: Fused, token_scores: Scores, keys: Keys = None) -> Float[Array, "I K A"]:
        s = self.settings
        dtype = jnp.dtype(s.dtype)
        visible = fused.image_mask[:, None, :, None].astype(fused.image.dtype)
        mean = jnp.sum(fused.image * visible, axis=2) / jnp.maximum(jnp.sum(visible, axis=2), 1)
        mean = jnp.tanh(nn.Dense(s.hidden_size, dtype=dtype, name="image_pooler")(mean))
        first = jnp.tanh(nn.Dense(s.hidden_size, dtype=dtype, name="text_pooler")(fused.text[:, :, 0]))
        mean = jnp.broadcast_to(mean, first.shape)
        joined = mean * first if s.head == "product" else jnp.concatenate([mean, first], axis=-1)
        activated = ACTIVATIONS[s.hidden_act](nn.Dense(s.intermediate_size, dtype=dtype, name="hidden")(joined))
        return nn.Dense(self.classes, dtype=at_least_float32(self.settings.dtype), name="classifier")(
            dropout(activated, s.hidden_dropout_prob, keys, 0)
        )


class PerTokenHead(Head):
    """One untied linear classifier at every position, the image's first."""

    def setup(self) -> None:
        self.classifier = nn.Dense(self.classes, dtype=jnp.dtype(self.settings.dtype))

    def __call__(self, fused: Fused, token_scores: Scores, keys: Keys = None) -> Float[Array, "I K N A"]:
        wide = jnp.broadcast_to(fused.image, (*fused.text.shape[:2], *fused.image.shape[2:]))
        scores = self.classifier(jnp.concatenate([wide, fused.text], axis=2))
        return scores.astype(at_least_float32(scores.dtype))

    def task_logits(self, fused: Fused, token_scores: Scores, keys: Keys = None) -> Float[Array, "I K A"]:
        """The logits at [CLS] alone."""
        scores = self.classifier(fused.text[:, :, 0])
        return scores.astype(at_least_float32(scores.dtype))


class MaskedLMHead(nn.Module):
    """BERT's masked-word head (Devlin et al. 2019): dense, activation, layer norm, product with the word table, bias.

    Where the table's width is not the trunk's, the dense layer leads from one to the other.
    """

    settings: Architecture
    tied: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*n D"], token_scores: Scores) -> Float[Array, "*n V"]:
        s, dtype = self.settings, jnp.dtype(self.settings.dtype)
        x = ACTIVATIONS[s.hidden_act](nn.Dense(s.text_feature_size, dtype=dtype, name="transform")(x))
        x = layer_norm(s, "norm")(x)
        words = s.vocab_size
        bias = self.param("bias", nn.initializers.zeros, (words,))
        scores = token_scores(x) if self.tied else nn.Dense(words, use_bias=False, name="decoder")(x)
        return scores.astype(at_least_float32(s.dtype)) + jnp.expand_dims(bias, range(x.ndim - 1))


class LanguageModelHead(Head):
    """At each token, the logits of the next one."""

    reads_first: ClassVar[bool] = False

    def setup(self) -> None:
        self.words = MaskedLMHead(self.settings)

    def __call__(self, fused: Fused, token_scores: Scores, keys: Keys = None) -> Float[Array, "I K T V"]:
        return self.words(fused.text, token_scores)


class ImageTokensHead(Head):
    """The logits of the image token at every grid position: BERT's masked-word head with an output of its own."""

    reads_first: ClassVar[bool] = False

    @nn.compact
    def __call__(self, fused: Fused, token_scores: Scores, keys: Keys = None) -> Float[Array, "I k G V"]:
        s, dtype = self.settings, jnp.dtype(self.settings.dtype)
        x = ACTIVATIONS[s.hidden_act](nn.Dense(s.hidden_size, dtype=dtype, name="transform")(fused.image))
        bias = self.param("bias", nn.initializers.zeros, (self.classes,))
        vectors = ImageTokenVectors(s.image.quantizer, s.hidden_size, std=s.hidden_size**-0.5, name="vectors")
        scores = vectors.scores(layer_norm(s, "norm")(x)).astype(at_least_float32(s.dtype))
        return scores + jnp.expand_dims(bias, range(scores.ndim - 1))


def pool(settings: Architecture, text: Float[Array, "I K t D"]) -> Float[Array, "I K D"]:
    """BERT's pooler, dense and tanh on [CLS], with the parameters `pooler` of the module that calls."""
    return jnp.tanh(nn.Dense(settings.hidden_size, dtype=jnp.dtype(settings.dtype), name="pooler")(text[:, :, 0]))


HEADS = {
    "cls": ClsHead,
    "token_before_sep": TokenBeforeSepHead,
    "product": JoinedHead,
    "concatenation": JoinedHead,
    "per_token": PerTokenHead,
    "lm": LanguageModelHead,
    "image_tokens": ImageTokensHead,
}
