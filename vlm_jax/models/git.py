"""GIT (Wang et al. 2022, arXiv:2205.14100): every token of an image transformer, then the text, in one sequence.

It is `VisualLanguageModel` with the fusion `concat` and the pattern `prefix`, but for its embeddings and its head. So
images are encoded once (`prefill_image`), and texts are decoded token by token (`next_token_logits`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from vlm_jax.config.architecture import Architecture
from vlm_jax.models.attention import dropout
from vlm_jax.models.bert import TextEmbeddings, layer_norm
from vlm_jax.models.dtypes import at_least_float32
from vlm_jax.models.heads import Fused, Head, Keys, Scores
from vlm_jax.models.pretrained import Part
from vlm_jax.models.vlm import Image, VisualLanguageModel


class GitOutput(NamedTuple):
    """What GIT computes of B images and a text about each."""

    logits: Float[Array, "B T V"] | None
    """At each token, those of the next one; None without the output layer. transformers has them of the G image tokens
    as well, in front."""
    last_hidden_state: Float[Array, "B N D"]
    """Of the G image tokens, then of the T text tokens."""


class GitEmbeddings(nn.Module):
    """Image tokens through a linear layer and a layer norm of their own; text through BERT's layer norm."""

    settings: Architecture

    @nn.compact
    def __call__(
        self, image: Float[Array, "I G C"] | None, text: Float[Array, "I K T D"], keys: Keys = None
    ) -> tuple[Float[Array, "I 1 G D"], Float[Array, "I K T D"]]:
        s, dtype = self.settings, jnp.dtype(self.settings.dtype)
        text = dropout(layer_norm(s, "norm")(text), s.hidden_dropout_prob, keys, 2)
        if image is None:
            return jnp.zeros((len(text), 1, 0, s.hidden_size), dtype), text
        image = nn.Dense(s.hidden_size, dtype=dtype, name="image_fc")(image)
        # GitProjection of modeling_git.py: this norm has the epsilon of the image transformer.
        image = nn.LayerNorm(epsilon=s.image.layer_norm_eps, dtype=dtype, name="image_norm")(image)
        return image[:, None], text


class GitHead(Head):
    """A linear layer over the vocabulary at each token, with a bias; its matrix is the word table where it is tied."""

    tied: bool = True

    @nn.compact
    def __call__(self, fused: Fused, token_scores: Scores, keys: Keys = None) -> Float[Array, "I K T V"]:
        size = self.settings.vocab_size
        bias = self.param("bias", nn.initializers.zeros, (size,))
        scores = token_scores if self.tied else nn.Dense(size, use_bias=False, name="decoder")
        logits = scores(fused.text).astype(at_least_float32(self.settings.dtype))
        return logits + jnp.expand_dims(bias, range(logits.ndim - 1))


class PretrainedGit(VisualLanguageModel):
    """A published GIT, with its parameters and no others.

    `parts` has `words` for the output layer, and `decoder` where that is not tied to the word table.
    """

    classes: int = 0
    parts: tuple[Part, ...] = ()
    pad_id: int | None = None
    """The row of the word table that gets no gradient from texts; None where there is none."""

    def make_embeddings(self) -> tuple[TextEmbeddings, GitEmbeddings]:
        """BERT's embeddings without token types, and the norms of both streams."""
        return TextEmbeddings(self.settings, self.pad_id), GitEmbeddings(self.settings)

    def make_head(self) -> GitHead | None:
        """The output layer."""
        return GitHead(self.settings, 0, "decoder" not in self.parts) if "words" in self.parts else None

    def encode_image(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B G C"]:
        """Every token of the image transformer, the class token first."""
        return self.image.features(image).tokens

    def __call__(
        self,
        image: Image,
        input_ids: Int[Array, "B T"],
        text_mask: Bool[Array, "B T"] | Int[Array, "B T"] | None = None,
        *,
        keys: Key[Array, ""] | Key[Array, " B"] | None = None,
    ) -> GitOutput:
        """The logits and states of normalised pixels [B, h, w, 3] and token ids; every token is visible without a mask.

        A key switches dropout on: one for the batch, or one an example. Raises `InputError` for more tokens than
        positions, and outside of `jax.jit` for ids without a row.
        """
        mask = jnp.ones(input_ids.shape, bool) if text_mask is None else text_mask.astype(bool)
        keys = keys if keys is None or keys.ndim else jax.random.split(keys, len(input_ids))
        fused = self.streams(image, input_ids[:, None], mask[:, None], keys=keys)
        logits = None if self.head is None else self.head(fused, self.text.scores)[:, 0]
        return GitOutput(logits, jnp.concatenate([fused.image[:, 0], fused.text[:, 0]], axis=1))
