"""Dual encoders: CLIP (Radford et al. 2021) and its relatives, whose sides meet in one product of vectors."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from vlm_jax.config import dual_encoder
from vlm_jax.config.encoders import VisionTransformer
from vlm_jax.models.bert import TextEmbeddings, layer_norm
from vlm_jax.models.pretrained import ImageClassifier
from vlm_jax.models.text_trunk import TextEmbeddingNorm, TextTrunk
from vlm_jax.models.vit_heads import PretrainedImageTransformer, image_vector
from vlm_jax.settings.changes import with_changes

INITIAL_SCALES = {"logit_scale": math.log(1 / 0.07), "temperature": 1.0}
"""CLIP's (Radford et al. 2021, section 2.5), and that of ALIGN's class in transformers."""
INITIAL_BIAS = -10.0  # Zhai et al. 2023, section 3.2


class DualEncoderOutput(NamedTuple):
    """The vectors of B images and N texts, and their products, under transformers' names."""

    logits_per_image: Float[Array, "B N"]
    logits_per_text: Float[Array, "N B"]
    text_embeds: Float[Array, "N P"]
    """Of length 1."""
    image_embeds: Float[Array, "B P"]
    """Of length 1."""


class TextTower(nn.Module):
    """Texts to the projection of one of their tokens."""

    settings: dual_encoder.TextTower
    projection_size: int
    dtype: str = "float32"

    def setup(self) -> None:
        layers = with_changes(self.settings.layers, {"dtype": self.dtype})
        self.text = TextEmbeddings(layers)
        if self.settings.embedding_norm:
            self.embed = TextEmbeddingNorm(layers)
        self.trunk = TextTrunk(layers)
        if self.settings.final_norm:
            self.final_norm = layer_norm(layers)
        self.projection = nn.Dense(self.projection_size, use_bias=self.settings.projection_bias)

    def __call__(
        self,
        input_ids: Int[Array, "N T"],
        text_mask: Bool[Array, "N T"] | None = None,
        segments: Int[Array, "N T"] | None = None,
    ) -> Float[Array, "N P"]:
        s, ids = self.settings, input_ids[:, None]
        mask = jnp.ones(ids.shape, bool) if text_mask is None else text_mask.astype(bool)[:, None]
        text = self.text(ids, None if segments is None else segments[:, None])
        image = jnp.zeros((len(ids), 1, 0, s.layers.hidden_size), text.dtype)
        if s.embedding_norm:
            image, text = self.embed(None, text)
        _, text = self.trunk(image, text, jnp.ones((len(ids), 0), bool), mask)
        text = self.final_norm(text) if s.final_norm else text
        rows = jnp.arange(len(ids))
        return self.projection(text[rows, 0, self._place(input_ids)])

    def _place(self, input_ids: Int[Array, "N T"]) -> Int[Array, " N"]:
        """Where the token stands that is projected."""
        s = self.settings
        if s.pooling != "end_token":
            return jnp.full(len(input_ids), 0 if s.pooling == "first_token" else input_ids.shape[1] - 1)
        return jnp.argmax(input_ids if s.end_id is None else input_ids == s.end_id, axis=-1)


class DualEncoder(nn.Module):
    """Images and texts to their vectors and the products of these."""

    settings: dual_encoder.DualEncoder
    dtype: str = "float32"

    def setup(self) -> None:
        s = self.settings
        if isinstance(s.image, VisionTransformer):
            self.image_encoder = PretrainedImageTransformer(
                s.image, (s.image_head,), projection_size=s.projection_size, dtype=self.dtype
            )
        else:
            self.image_encoder = ImageClassifier(s.image, 0, self.dtype, s.image_head)
        self.text_encoder = TextTower(s.text, s.projection_size, self.dtype)
        self.scale = self.param(s.scale, nn.initializers.constant(INITIAL_SCALES[s.scale]), ())
        self.bias = self.param("logit_bias", nn.initializers.constant(INITIAL_BIAS), ()) if s.logit_bias else 0

    def image_features(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B P"]:
        """transformers' `get_image_features`: the projections of images, not yet of length 1."""
        return image_vector(self.image_encoder(image))

    def text_features(
        self,
        input_ids: Int[Array, "N T"],
        text_mask: Bool[Array, "N T"] | None = None,
        segments: Int[Array, "N T"] | None = None,
    ) -> Float[Array, "N P"]:
        """transformers' `get_text_features`: the projections of texts, not yet of length 1."""
        return self.text_encoder(input_ids, text_mask, segments)

    def __call__(
        self,
        image: Float[Array, "B h w 3"],
        input_ids: Int[Array, "N T"],
        text_mask: Bool[Array, "N T"] | None = None,
        segments: Int[Array, "N T"] | None = None,
    ) -> DualEncoderOutput:
        return self.compare(self.image_features(image), self.text_features(input_ids, text_mask, segments))

    def compare(self, image: Float[Array, "B P"], text: Float[Array, "N P"]) -> DualEncoderOutput:
        """The cosines of features, times exp(`logit_scale`) or divided by `temperature`, and with `logit_bias`."""
        image, text = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (image, text))
        factor = jnp.exp(self.scale) if self.settings.scale == "logit_scale" else 1 / self.scale
        logits = factor * (image @ text.T) + self.bias
        return DualEncoderOutput(logits, logits.T, text, image)
