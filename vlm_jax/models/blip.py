"""BLIP (Li et al. 2022, arXiv:2201.12086): captions, answers to questions, and whether an image and a text match.

Each model is an image transformer with one or two BERTs: an encoder that reads a text alone or with an image, and a
decoder that writes one. Each layer of these attends to the states of another side after its self-attention (figure 2).
All of them obey the masks of the states that they attend to, as the original does; transformers 5.24 does not.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from vlm_jax.config import blip
from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import Features
from vlm_jax.models.attention import fold_keys
from vlm_jax.models.kv_cache import KVCache, Prefix, empty_caches
from vlm_jax.models.pretrained import Part, PretrainedModel
from vlm_jax.models.vit_heads import PretrainedImageTransformer
from vlm_jax.settings.changes import with_changes

SMALLEST_NORM = 1e-12  # torch.nn.functional.normalize's

Keys = Key[Array, " B"] | None
Mask = Bool[Array, "B T"] | Int[Array, "B T"] | None


class CaptionOutput(NamedTuple):
    """What the captioning model computes."""

    logits: Float[Array, "B T V"]
    """At each token, those of the next one."""
    image_embeds: Float[Array, "B N C"]
    """The image's tokens after the last layer norm."""
    pooler_output: Float[Array, "B C"]


class AnswerOutput(NamedTuple):
    """What the model of questions and answers computes."""

    logits: Float[Array, "B A V"]
    """At each token of an answer, those of the next one."""
    question_embeds: Float[Array, "B T D"]
    """The question's tokens, which have read the image."""
    image_embeds: Float[Array, "B N C"]
    pooler_output: Float[Array, "B C"]


class RetrievalOutput(NamedTuple):
    """What the matching model computes of B images and as many texts."""

    itm_score: Float[Array, "B 2"]
    """Logits of each image and its text: they do not match, they match."""
    itc_score: Float[Array, "B B"]
    """Cosines of every image with every text: transformers' `itm_score` with `use_itm_head=False`."""
    question_embeds: Float[Array, "B T D"]
    """The text's tokens, which have read the image."""
    image_embeds: Float[Array, "B N C"]
    pooler_output: Float[Array, "B C"]


def decoder_settings(encoder: Architecture, states_width: int) -> Architecture:
    """The layers of an encoder as a decoder that attends to states of a width."""
    return with_changes(encoder, {"attention_pattern": "causal", "image": Features(feature_size=states_width)})


class _Blip(nn.Module):
    """What the three models share: the image side."""

    settings: blip.Blip
    parts: tuple[Part, ...] = ("words",)
    """Heads of the decoder: `decoder` as well where its output matrix is not its word table."""
    dtype: str = "float32"

    def setup(self) -> None:
        self.image_encoder = PretrainedImageTransformer(self.settings.image, dtype=self.dtype)

    def image_tokens(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B N C"]:
        """The class token and the patches, after the last layer norm."""
        return self.image_encoder(image).tokens

    def pool(self, tokens: Float[Array, "B N C"]) -> Float[Array, "B C"]:
        """transformers' `pooler_output`: the class token through the last layer norm once more."""
        return self.image_encoder.image.norm(tokens[:, 0])

    @property
    def _text(self) -> Architecture:
        return with_changes(self.settings.text, {"dtype": self.dtype})

    def _encoder(self) -> PretrainedModel:
        return PretrainedModel(self._text, 0, (), self.settings.pad_token_id)

    def _decoder(self, states_width: int) -> PretrainedModel:
        parts = tuple(part for part in self.parts if part in ("words", "decoder"))
        return PretrainedModel(decoder_settings(self._text, states_width), 0, parts, self.settings.pad_token_id)


class _BlipDecoder(_Blip):
    """What those that write share: what decoding strategies use of a `decoding.protocol.TextModel`."""

    def empty_cache(self, num_images: int, num_texts: int, length: int) -> list[KVCache]:
        """One cache a layer of the decoder, for `length` tokens of `num_texts` texts an image."""
        return empty_caches(self._text, num_images, num_texts, length)

    def next_token_logits(
        self, prefix: Prefix, cache: list[KVCache], ids: Int[Array, "I K n"]
    ) -> tuple[Float[Array, "I K n V"], list[KVCache]]:
        """At each of n new tokens of every text, the logits of the next one, and the cache with the new tokens."""
        return self.text_decoder.next_token_logits(prefix, cache, ids)


class BlipForConditionalGeneration(_BlipDecoder):
    """An image and the beginning of a caption to the logits of the next token at each of its tokens."""

    def setup(self) -> None:
        super().setup()
        self.text_decoder = self._decoder(self.settings.image.hidden_size)

    def __call__(
        self,
        image: Float[Array, "B h w 3"],
        input_ids: Int[Array, "B T"],
        text_mask: Mask = None,
        *,
        keys: Keys = None,
    ) -> CaptionOutput:
        tokens = self.image_tokens(image)
        output = self.text_decoder(input_ids, text_mask, image=tokens, keys=keys)
        return CaptionOutput(output.words, tokens, self.pool(tokens))

    def prefill_image(self, image: Float[Array, "I h w 3"], *, image_mask: Bool[Array, "I N"] | None = None) -> Prefix:
        """What the tokens of captions attend to, computed once."""
        return self.text_decoder.prefill_image(self.image_tokens(image), image_mask=image_mask)


class BlipForQuestionAnswering(_BlipDecoder):
    """An image, a question and the beginning of an answer to the logits of the next token at each token of the answer.

    The encoder reads the question with the image; the decoder attends to the question's states alone.
    """

    def setup(self) -> None:
        super().setup()
        self.text_encoder = self._encoder()
        self.text_decoder = self._decoder(self.settings.text.hidden_size)

    def __call__(
        self,
        image: Float[Array, "B h w 3"],
        input_ids: Int[Array, "B T"],
        text_mask: Mask = None,
        *,
        decoder_input_ids: Int[Array, "B A"],
        decoder_mask: Bool[Array, "B A"] | Int[Array, "B A"] | None = None,
        keys: Keys = None,
    ) -> AnswerOutput:
        tokens = self.image_tokens(image)
        question = self.text_encoder(input_ids, text_mask, image=tokens, keys=fold_keys(keys, 0)).text
        options = {"image": question, "image_mask": text_mask, "keys": fold_keys(keys, 1)}
        output = self.text_decoder(decoder_input_ids, decoder_mask, **options)
        return AnswerOutput(output.words, question, tokens, self.pool(tokens))

    def prefill_question(
        self, image: Float[Array, "I h w 3"], input_ids: Int[Array, "I T"], text_mask: Bool[Array, "I T"] | None = None
    ) -> Prefix:
        """What the tokens of answers attend to, computed once: the states of each image's question."""
        question = self.text_encoder(input_ids, text_mask, image=self.image_tokens(image)).text
        return self.text_decoder.prefill_image(question, image_mask=text_mask)


class BlipForImageTextRetrieval(_Blip):
    """Images and texts to whether each pair matches (ITM), and to the cosines of all with all (ITC).

    The same encoder reads a text with its image for the first, and alone for the second.
    """

    def setup(self) -> None:
        super().setup()
        self.text_encoder = self._encoder()
        size, dtype = self.settings.projection_size, jnp.dtype(self.dtype)
        self.itm_head = nn.Dense(2, dtype=dtype)
        self.vision_proj, self.text_proj = nn.Dense(size, dtype=dtype), nn.Dense(size, dtype=dtype)

    def __call__(
        self,
        image: Float[Array, "B h w 3"],
        input_ids: Int[Array, "B T"],
        text_mask: Mask = None,
        *,
        keys: Keys = None,
    ) -> RetrievalOutput:
        tokens = self.image_tokens(image)
        itm_score, question = self.match(tokens, input_ids, text_mask, keys=fold_keys(keys, 0))
        text = self.text_features(input_ids, text_mask, keys=fold_keys(keys, 1))
        return RetrievalOutput(itm_score, self.image_features(tokens) @ text.T, question, tokens, self.pool(tokens))

    def match(
        self, tokens: Float[Array, "B N C"], input_ids: Int[Array, "B T"], text_mask: Mask = None, *, keys: Keys = None
    ) -> tuple[Float[Array, "B 2"], Float[Array, "B T D"]]:
        """`itm_score` of each text with the image of these tokens, and the text's states, which have read the image."""
        states = self.text_encoder(input_ids, text_mask, image=tokens, keys=keys).text
        return self.itm_head(states[:, 0]), states

    def image_features(self, tokens: Float[Array, "B N C"]) -> Float[Array, "B P"]:
        """The vectors of images, of length 1, from their tokens."""
        return _of_length_one(self.vision_proj(tokens[:, 0]))

    def text_features(
        self, input_ids: Int[Array, "N T"], text_mask: Mask = None, *, keys: Keys = None
    ) -> Float[Array, "N P"]:
        """The vectors of texts, of length 1, each read without an image."""
        return _of_length_one(self.text_proj(self.text_encoder(input_ids, text_mask, keys=keys).text[:, 0]))


def _of_length_one(x: Float[Array, "N P"]) -> Float[Array, "N P"]:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), SMALLEST_NORM)
