"""The vision-language model: CNN and BERT embeddings, fusion, head."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from vlm_jax.config.architecture import Architecture
from vlm_jax.models.attention import IMAGE, TEXT, KeyValue, KVCache, fold_keys, stream_mask
from vlm_jax.models.bert import TextEmbeddings
from vlm_jax.models.cnn import ImageTokenEmbedding, make_cnn
from vlm_jax.models.feature_fusion import FeatureFusion
from vlm_jax.models.fusion import FUSIONS
from vlm_jax.models.heads import HEADS, Fused
from vlm_jax.types import ModelOutput

Image = Float[Array, "I h w C"] | Float[Array, "I G C"] | Int[Array, "I gh gw"]
Text = Int[Array, "I K T"] | Float[Array, "I K T E"]
FlatText = Int[Array, "I T"] | Float[Array, "I T E"]


class ImagePrefix(NamedTuple):
    """What words read of images: of each layer, keys and values of the cells; and which cells are visible."""

    layers: list[KeyValue]
    mask: Bool[Array, "I G"]


class PromptPrefix(NamedTuple):
    """What cells read of prompts: of each layer, keys and values of the words; and which words are visible."""

    layers: list[KeyValue]
    mask: Bool[Array, "I K T"]


class ImageTokenCache(NamedTuple):
    """Keys and values of cells so far, in reading order, in room for all of them [I, K, H, G, d]."""

    layers: list[KeyValue]
    length: Int[Array, ""]
    """How many cells there are; every image has as many."""


class TextCache(NamedTuple):
    """Keys and values of words so far, in room of a fixed length [I, K, H, L, d]: the cache of a decoder."""

    layers: list[KeyValue]
    length: Int[Array, ""]
    """How many words there are; every text has as many."""


class VisualLanguageModel(nn.Module):
    """Images and K texts each -> logits.

    `image` is normalised pixels, or grid features [I, gh, gw, C] or [I, G, C] where `image.kind` is `features`, or an
    image tokenizer's image tokens where it is `image_tokens`;
    `text` is token ids, or text features that already hold positions. `image_mask` [I, G] hides cells; [I, 1] hides
    all of them: the question alone. `keys`, one an example, switch dropout on.
    """

    settings: Architecture
    classes: int

    def setup(self) -> None:
        s = self.settings
        if s.image.kind == "image_tokens":
            self.image = ImageTokenEmbedding(s)
        elif s.image.kind != "features":
            self.image = make_cnn(s.image, jnp.dtype(s.dtype), s.convolution)
        self.text, self.embed = self.make_embeddings()
        self.trunk = FUSIONS[s.fusion](s)
        self.head = self.make_head()

    def make_embeddings(self) -> tuple[TextEmbeddings, FeatureFusion]:
        """What turns tokens into vectors, and what leads both sides into the trunk."""
        return TextEmbeddings(self.settings), FeatureFusion(self.settings)

    def make_head(self) -> nn.Module:
        """What stands on the streams."""
        return HEADS[self.settings.head](self.settings, self.classes)

    def token_logits(
        self,
        image: Image,
        text: Text,
        text_mask: Bool[Array, "I K T"],
        *,
        image_mask: Bool[Array, "I g"] | None = None,
        keys: Key[Array, " I"] | None = None,
    ) -> Float[Array, "I K T V"]:
        """After each word of every text, the logits of the one that comes next."""
        fused = self.streams(image, text, text_mask, image_mask=image_mask, keys=keys)
        return self.head(fused.text, self.text.scores)

    def image_token_logits(
        self,
        tokens: Int[Array, "I gh gw"],
        text: Text,
        text_mask: Bool[Array, "I K T"],
        *,
        keys: Key[Array, " I"] | None = None,
    ) -> Float[Array, "I K G V"]:
        """Of every cell the logits of its image token, given each text; hidden cells hold one image token more than
        there are."""
        return self.head(self.streams(tokens, text, text_mask, keys=keys))

    def streams(
        self,
        image: Image | None,
        text: Text,
        text_mask: Bool[Array, "I K T"],
        *,
        image_mask: Bool[Array, "I m"] | None = None,
        segments: Int[Array, "I K T"] | None = None,
        keys: Key[Array, " I"] | None = None,
        first_only: bool = False,
    ) -> Fused:
        """The fused image and text streams, before any head, and which of their positions were visible.

        With `first_only` the text stream is its first position, and the image stream what the fusion computed of it.
        """
        if image is not None and self.settings.image.kind != "features":
            image = self.image(image)
        if jnp.issubdtype(text.dtype, jnp.integer):
            text = self.text(text, segments)
        if image_mask is None:
            image_mask = jnp.ones((1, 1), bool)
        image_stream, text_stream = self.embed(image, text, fold_keys(keys, 1))
        image_mask = jnp.broadcast_to(image_mask, (len(text), image_stream.shape[2]))
        streams = self.trunk(image_stream, text_stream, image_mask, text_mask, fold_keys(keys, 2), first_only)
        return Fused(*streams, image_mask, text_mask)

    def __call__(
        self,
        image: Image,
        text: Text | FlatText,
        text_mask: Bool[Array, "I K T"] | Bool[Array, "I T"],
        *,
        image_mask: Bool[Array, "I g"] | None = None,
        keys: Key[Array, " I"] | None = None,
    ) -> ModelOutput:
        """Everything: logits as `model.head` says, and both streams.

        A text without the slot axis is one slot an image, and what returns has no slot axis either: features
        [B, G, C] and [B, T, E] become logits [B, G + T, A].
        """
        if text_mask.ndim == 2:
            batch = self(image, text[:, None], text_mask[:, None], image_mask=image_mask, keys=keys)
            return ModelOutput(*(x[:, 0] for x in batch))
        fused = self.streams(image, text, text_mask, image_mask=image_mask, keys=keys)
        words = self.settings.head == "lm"
        logits = self.head(fused.text, self.text.scores) if words else self.head(fused, fold_keys(keys, 3))
        return ModelOutput(logits, fused.image, fused.text)

    def answer_logits(
        self,
        image: Image,
        text: Text,
        text_mask: Bool[Array, "I K T"],
        *,
        image_mask: Bool[Array, "I g"] | None = None,
        keys: Key[Array, " I"] | None = None,
    ) -> Float[Array, "I K A"]:
        """One row of logits a text, with any head; of text positions that it does not read, no more than is needed."""
        inputs, first_only = (image, text, text_mask), self.head.reads_first
        fused = self.streams(*inputs, image_mask=image_mask, keys=keys, first_only=first_only)
        return self.head.answer(fused, fold_keys(keys, 3))

    def image_vector(self, image: Image) -> Float[Array, "I F"]:
        """The mean cell of each image's grid features, scaled to length 1: products of two images are cosines."""
        if self.settings.image.kind != "features":
            image = self.image(image)
        features = image.reshape(len(image), -1, image.shape[-1]).astype(jnp.float32)
        mean = jnp.mean(features, axis=1)
        # Features that are 0 everywhere stay so, and are like nothing.
        return mean / jnp.maximum(jnp.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)

    def prefill_image(self, image: Image, *, image_mask: Bool[Array, "I g"] | None = None) -> ImagePrefix:
        """What words read of images, computed once for all the words that follow, of which it must see none."""
        s = self.settings
        if s.image.kind != "features":
            image = self.image(image)
        stream, _ = self.embed(image, self._no_text(len(image)))
        mask = jnp.ones((1, 1), bool) if image_mask is None else image_mask
        mask = jnp.broadcast_to(mask, (len(image), stream.shape[2]))
        return ImagePrefix(self.trunk.prefill(IMAGE, stream, mask[:, None]), mask)

    def empty_text_cache(self, num_images: int, num_texts: int, length: int) -> TextCache:
        """Room for `length` words of `num_texts` texts an image, none of them there yet."""
        return TextCache(self._empty_cache(num_images, num_texts, length), jnp.int32(0))

    def _empty_cache(self, num_images: int, num_texts: int, length: int) -> list[KeyValue]:
        s = self.settings
        zeros = jnp.zeros(
            (num_images, num_texts, s.num_attention_heads, length, s.hidden_size // s.num_attention_heads),
            jnp.dtype(s.dtype),
        )
        return [(zeros, zeros)] * s.num_layers

    def prefill_prompt(self, text: Int[Array, "I K T"], text_mask: Bool[Array, "I K T"]) -> PromptPrefix:
        """What cells read of prompts, computed once for all that is drawn of them; words must see no image."""
        _, stream = self.embed(None, self.text(text))
        return PromptPrefix(self.trunk.prefill(TEXT, stream, text_mask), text_mask)

    def prefilled_token_logits(self, prompt: PromptPrefix, tokens: Int[Array, "I gh gw"]) -> Float[Array, "I K G V"]:
        """`image_token_logits` of prompts that have been read."""
        image, _ = self.embed(self.image(tokens), self._no_text(len(tokens)))
        image = jnp.broadcast_to(image, (len(image), prompt.mask.shape[1], *image.shape[2:]))
        mask = stream_mask(self.settings.attention_pattern, IMAGE, jnp.ones(image.shape[:3], bool))
        return self._head_logits(*self.trunk.decode_step(image, mask, *prompt, [None] * self.settings.num_layers))[0]

    def empty_image_token_cache(self, num_images: int, num_texts: int, length: int) -> ImageTokenCache:
        """Room for `length` tokens of an image for each of `num_texts` prompts, none of them there yet."""
        return ImageTokenCache(self._empty_cache(num_images, num_texts, length), jnp.int32(0))

    def next_image_token_logits(
        self, prompt: PromptPrefix, cache: ImageTokenCache, previous: Int[Array, "I n"], grid: tuple[int, int]
    ) -> tuple[Float[Array, "I K n V"], ImageTokenCache]:
        """Of each of the n next cells the logits of its image token, under the pattern `autoregressive`.

        A cell is asked for by the image token before it, in reading order; before the first one there is a hidden one.
        """
        new, cache_length = previous.shape[1], cache.layers[0][0].shape[3]
        image, _ = self.embed(self.image(previous), self._no_text(len(previous)), grid=grid, start=cache.length)
        image = jnp.broadcast_to(image, (len(image), prompt.mask.shape[1], *image.shape[2:]))
        mask = jnp.arange(cache_length)[None] <= cache.length + jnp.arange(new)[:, None]
        mask = jnp.broadcast_to(mask, (*image.shape[:3], cache_length))
        caches = [KVCache(*layer, cache.length) for layer in cache.layers]
        logits, layers = self._head_logits(*self.trunk.decode_step(image, mask, *prompt, caches))
        return logits, ImageTokenCache(layers, cache.length + new)

    def _no_text(self, num_images: int) -> Float[Array, "I 1 0 E"]:
        s = self.settings
        return jnp.zeros((num_images, 1, 0, s.text_feature_size), jnp.dtype(s.dtype))

    def _head_logits(
        self, image: Float[Array, "I K n D"], layers: list[KeyValue]
    ) -> tuple[Float[Array, "I K n V"], list[KeyValue]]:
        nothing = jnp.zeros((len(image), 0), bool)
        return self.head(Fused(image, image[:, :, :0], nothing, nothing[:, None])), layers

    def next_token_logits(
        self, image: ImagePrefix, words: TextCache, ids: Int[Array, "I K n"]
    ) -> tuple[Float[Array, "I K n V"], TextCache]:
        """After each of n new words of every text, the logits of the one that comes next.

        The words before are those in `words`; what returns holds the new ones as well.
        """
        new, cache_length = ids.shape[-1], words.layers[0][0].shape[3]
        _, text = self.embed(None, self.text(ids, start=words.length))
        mask = jnp.arange(cache_length)[None] <= words.length + jnp.arange(new)[:, None]
        mask = jnp.broadcast_to(mask, (*ids.shape, cache_length))
        caches = [KVCache(*layer, words.length) for layer in words.layers]
        text, layers = self.trunk.decode_step(text, mask, image.layers, image.mask[:, None], caches)
        return self.head(text, self.text.scores), TextCache(layers, words.length + new)
