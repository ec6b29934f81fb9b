"""Published encoders with the heads they were trained with: the vision-language model, with or without an image.

A text model is `VisualLanguageModel` without an image, VisualBERT is the model with grid features; so their parameters
have the paths that `VisualLanguageModel` gives them.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import ConvNeXt, PixelEncoder
from vlm_jax.errors import InputError
from vlm_jax.models.attention import dropout, fold_keys
from vlm_jax.models.bert import ACTIVATIONS, TextEmbeddings
from vlm_jax.models.cnn import make_image_encoder
from vlm_jax.models.feature_fusion import FeatureFusion
from vlm_jax.models.fusion import FUSIONS
from vlm_jax.models.heads import Fused, Keys, MaskedLMHead, Scores, TokenBeforeSepHead, pool
from vlm_jax.models.ids import check_ids
from vlm_jax.models.pretrained_output import ImageClassifierOutput, PretrainedOutput
from vlm_jax.models.recording import record
from vlm_jax.models.text_trunk import TextEmbeddingNorm, TextTrunk
from vlm_jax.models.vlm import VisualLanguageModel

Module = nn.Module
"""Any Flax module, for code that only hands one on."""
Part = Literal[
    "pooler", "words", "decoder", "pairs", "answers", "classifier", "sequence", "tokens", "spans", "replaced",
    "attention_pooler", "projection", "distilled_classifiers", "text_encoder", "matching", "projections",
]  # fmt: skip
"""A head: pooled [CLS]; masked words, `decoder` where it is not tied to the word table; sentence pairs; answers; the
classifier of an image encoder; classes of a text, of each token; where an answer begins and ends; replaced tokens;
SigLIP's pooler; CLIP's projection; DeiT's two classifiers; BLIP's encoder of texts, its head that says whether they
match an image, and the projections of both."""
SEQUENCE_ACTIVATIONS = ACTIVATIONS | {"tanh": jnp.tanh}


def sees(settings: Architecture) -> bool:
    """Whether a published transformer was trained with an image: VisualBERT's cells share one position."""
    return settings.image.positions == "shared"


class HeadDropout(NamedTuple):
    """Dropout of the heads that read classes."""

    transform: float = 0.0
    """Before the dense layer of a sequence head."""
    classes: float = 0.0
    """Before the layer that computes logits."""


class PretrainedHeads(nn.Module):
    """Those heads of an encoder that `parts` names."""

    settings: Architecture
    parts: tuple[Part, ...]
    classes: int
    sequence_act: str | None = None
    dropout: HeadDropout = HeadDropout()

    @nn.compact
    def __call__(self, fused: Fused, token_scores: Scores, keys: Keys = None) -> PretrainedOutput:
        s, parts = self.settings, self.parts
        pooled = pool(s, fused.text)[:, 0] if "pooler" in parts else None
        words = image_words = pairs = answers = None
        text, image = fused.text[:, 0], fused.image[:, 0]
        if "words" in parts:
            both = jnp.concatenate([text, image], axis=1)
            both = MaskedLMHead(s, "decoder" not in parts, name="words")(both, token_scores)
            words, image_words = both[:, : text.shape[1]], both[:, text.shape[1] :]
        if "pairs" in parts:
            pairs = nn.Dense(2, name="pairs")(dropout(pooled, self.dropout.classes, keys, 0))
        if "answers" in parts:
            answers = TokenBeforeSepHead(s, self.classes, name="answers")(fused, token_scores, keys)[:, 0]
        labels = self._labels(text, pooled, keys)
        return PretrainedOutput(text, image, pooled, words, image_words, pairs, answers, *labels)

    def _labels(
        self, text: Float[Array, "B T D"], pooled: Float[Array, "B D"] | None, keys: Keys
    ) -> tuple[Array | None, ...]:
        """The logits of `sequence`, `tokens`, `spans` and `replaced`."""
        s, parts = self.settings, self.parts
        before_classes = partial(dropout, rate=self.dropout.classes, keys=keys, site=0)
        sequence = tokens = spans = replaced = None
        if "sequence" in parts:
            if self.sequence_act is not None:
                first = dropout(text[:, 0], self.dropout.transform, keys, 1)
                pooled = nn.Dense(s.hidden_size, name="sequence_transform")(first)
                pooled = SEQUENCE_ACTIVATIONS[self.sequence_act](pooled)
            sequence = nn.Dense(self.classes, name="sequence")(before_classes(pooled))
        if "tokens" in parts:
            tokens = nn.Dense(self.classes, name="tokens")(before_classes(text))
        if "spans" in parts:
            spans = nn.Dense(2, name="spans")(before_classes(text))
        if "replaced" in parts:
            activated = ACTIVATIONS[s.hidden_act](nn.Dense(s.hidden_size, name="replaced_transform")(text))
            replaced = nn.Dense(1, name="replaced")(activated)[..., 0]
        return sequence, tokens, spans, replaced


class PretrainedModel(VisualLanguageModel):
    """A published encoder: one text an example, and grid features where it was trained with an image.

    It has the published model's parameters and no others, so that an optimizer trains what it trains there.
    """

    parts: tuple[Part, ...] = ()
    pad_id: int | None = None
    """The row of the word table that gets no gradient from texts; None where there is none."""
    sequence_act: str | None = None
    """Activation of the dense layer of the sequence head; None where that reads the pooled [CLS]."""
    head_dropout: HeadDropout = HeadDropout()

    def make_embeddings(self) -> tuple[TextEmbeddings, FeatureFusion | TextEmbeddingNorm]:
        """Without the `text_fc` of a vision-language model, which a published encoder has not."""
        s = self.settings
        embed = FeatureFusion(s, text_fc=False) if sees(s) else TextEmbeddingNorm(s)
        return TextEmbeddings(s, self.pad_id), embed

    def make_trunk(self) -> nn.Module:
        """The encoder's layers."""
        return FUSIONS[self.settings.fusion](self.settings) if sees(self.settings) else TextTrunk(self.settings)

    def make_head(self) -> nn.Module:
        """The encoder's own heads."""
        return PretrainedHeads(self.settings, self.parts, self.classes, self.sequence_act, self.head_dropout)

    def _head_logits(self, image: Float[Array, "I k 0 D"], text: Float[Array, "I K n D"]) -> Float[Array, "I K n V"]:
        """The logits of the next token at each of a decoder's tokens; heads take one text an example."""
        rows = text.reshape(-1, 1, *text.shape[2:])
        fused = Fused(rows[:, :, :0], rows, jnp.ones((len(rows), 0), bool), jnp.ones(rows.shape[:3], bool))
        return self.head(fused, self.text.scores).words.reshape(*text.shape[:3], -1)

    def __call__(
        self,
        input_ids: Int[Array, "B T"],
        text_mask: Bool[Array, "B T"] | Int[Array, "B T"] | None = None,
        *,
        segments: Int[Array, "B T"] | None = None,
        image: Float[Array, "B G C"] | None = None,
        image_mask: Bool[Array, "B G"] | Int[Array, "B G"] | None = None,
        image_segments: Int[Array, "B G"] | None = None,
        keys: Key[Array, ""] | Key[Array, " B"] | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> PretrainedOutput:
        """Streams and heads; `segments` are the token types, 0 where they are left out.

        Every token is visible without a mask. `image_segments` are the token types of grid features, the last one where
        they are left out. A key switches dropout on: one for the batch, or one an example. A decoder with
        cross-attention takes the states of its encoder as `image`. Raises `InputError` for more tokens or grid features
        than positions. Ids and token types without a row raise it too, but not inside `jax.jit`, where they have no
        values yet: call `check_text` before.
        """
        if image_segments is not None and not sees(self.settings):
            raise InputError("this encoder has no image token types; leave image_segments out")
        mask = jnp.ones(input_ids.shape, bool) if text_mask is None else text_mask.astype(bool)
        image_mask = None if image_mask is None else image_mask.astype(bool)
        keys = keys if keys is None or keys.ndim else jax.random.split(keys, len(input_ids))
        slots = [None if x is None else x[:, None] for x in (input_ids, mask, segments)]
        options = {"image_mask": image_mask, "image_segments": image_segments, "segments": slots[2], "keys": keys}
        if not (output_hidden_states or output_attentions):
            return self.head(self.streams(image, *slots[:2], **options), self.text.scores, fold_keys(keys, 3))
        with record() as recording:
            fused = self.streams(image, *slots[:2], **options)
        output = self.head(fused, self.text.scores, fold_keys(keys, 3))
        grid_length = fused.image.shape[2]
        states = recording.states(input_ids.shape[1] + grid_length, grid_length=grid_length)
        return output._replace(
            hidden_states=states.hidden_states if output_hidden_states else None,
            attentions=states.attentions if output_attentions else None,
            cross_attentions=(states.cross_attentions or None) if output_attentions else None,
        )


def check_text(settings: Architecture, input_ids: ArrayLike, segments: ArrayLike | None = None) -> None:
    """`InputError` where a token id or a token type has no row in its table."""
    check_ids(input_ids, settings.vocab_size, "token id")
    if segments is not None:
        if not settings.type_vocab_size:
            raise InputError("this encoder has no token types; leave segments out")
        check_ids(segments, settings.type_vocab_size, "token type")


GridPooling = Literal["mean", "max"]
GRID_POOLINGS = {"mean": jnp.mean, "max": jnp.max}
"""From a grid of features to one vector."""


class ImageClassifier(nn.Module):
    """A CNN with the classifier of its training: pixels to the mean of the grid features, and logits over `classes`."""

    settings: PixelEncoder
    classes: int
    dtype: str = "float32"
    pooling: GridPooling = "mean"
    """Over the grid; the maximum is an option of ALIGN's image side."""

    def setup(self) -> None:
        self.image = make_image_encoder(self.settings, jnp.dtype(self.dtype))
        if isinstance(self.settings, ConvNeXt):
            self.final_norm = nn.LayerNorm(epsilon=self.settings.layer_norm_eps, dtype=jnp.dtype(self.dtype))
        self.head = ImageClasses(self.classes)

    def __call__(self, image: Float[Array, "B h w 3"]) -> ImageClassifierOutput:
        """The mean of the grid features, with ConvNeXt's norm, and the logits; None where there are no classes."""
        grid = self.image(image)
        features = GRID_POOLINGS[self.pooling](grid, axis=(1, 2))
        if isinstance(self.settings, ConvNeXt):
            features = self.final_norm(features)
        return ImageClassifierOutput(features, self.head(features) if self.classes else None, grid)


class ImageClasses(nn.Module):
    """A linear classifier over the mean of the grid features."""

    classes: int

    @nn.compact
    def __call__(self, features: Float[Array, "B C"]) -> Float[Array, "B A"]:
        return nn.Dense(self.classes, name="classifier")(features)
