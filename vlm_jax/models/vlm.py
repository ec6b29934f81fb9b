"""The vision-language model: CNN and BERT embeddings, fusion, head."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from vlm_jax.config.architecture import Architecture
from vlm_jax.errors import InputError
from vlm_jax.models.attention import IMAGE, TEXT, fold_keys, stream_mask
from vlm_jax.models.bert import TextEmbeddings
from vlm_jax.models.cnn import ImageTokenEmbedding, make_image_encoder
from vlm_jax.models.feature_fusion import FeatureFusion
from vlm_jax.models.fusion import FUSIONS
from vlm_jax.models.heads import HEADS, Fused
from vlm_jax.models.kv_cache import KVCache, Prefix, empty_caches
from vlm_jax.types import ModelOutput

Image = Float[Array, "I h w C"] | Float[Array, "I G C"] | Int[Array, "I gh gw"]
Text = Int[Array, "I K T"] | Float[Array, "I K T E"]
FlatText = Int[Array, "I T"] | Float[Array, "I T E"]


class VisualLanguageModel(nn.Module):
    """Images and K texts each -> logits.

    `image` is normalised pixels, grid features [I, gh, gw, C] or [I, G, C] where `image.kind` is `features`, or the
    image tokens of an image tokenizer where it is `image_tokens`: a masked one is the codebook size. In the place of
    pixels it may be float16: stored outputs of the image encoder. `text` is token ids, or text features that already
    hold positions. `image_mask` [I, G] is False at grid positions that nothing attends to; [I, 1] serves all of them:
    the question alone. `keys`, one an example, switch dropout on.
    """

    settings: Architecture
    classes: int

    def setup(self) -> None:
        s = self.settings
        if s.image.kind == "image_tokens":
            self.image = ImageTokenEmbedding(s)
        elif s.image.kind != "features":
            repeated = {"remat": s.remat, "scan_layers": s.scan_layers}
            self.image = make_image_encoder(s.image, jnp.dtype(s.dtype), s.convolution, **repeated)
        self.text, self.embed = self.make_embeddings()
        self.trunk = self.make_trunk()
        self.head = self.make_head()

    def make_embeddings(self) -> tuple[TextEmbeddings, FeatureFusion]:
        """The embeddings of tokens, and the projections of both streams to the trunk's width."""
        return TextEmbeddings(self.settings), FeatureFusion(self.settings)

    def make_trunk(self) -> nn.Module:
        """The layers that fuse both streams."""
        return FUSIONS[self.settings.fusion](self.settings)

    def make_head(self) -> nn.Module:
        """The head on the streams."""
        return HEADS[self.settings.head](self.settings, self.classes)

    def streams(
        self,
        image: Image | None,
        text: Text,
        text_mask: Bool[Array, "I K T"],
        *,
        image_mask: Bool[Array, "I m"] | None = None,
        segments: Int[Array, "I K T"] | None = None,
        image_segments: Int[Array, "I G"] | None = None,
        keys: Key[Array, " I"] | None = None,
        first_only: bool = False,
    ) -> Fused:
        """The fused image and text streams, before any head, and which of their positions were visible.

        With `first_only` the text stream is its first position, and the image stream what the fusion computed of it.
        """
        if image is not None:
            image = self.grid_features(image)
        if jnp.issubdtype(text.dtype, jnp.integer):
            text = self.text(text, segments)
        if image_mask is None:
            image_mask = jnp.ones((1, 1), bool)
        types = {} if image_segments is None else {"image_segments": image_segments}
        image_stream, text_stream = self.embed(image, text, fold_keys(keys, 1), **types)
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
        logits = self.head(fused, self.text.scores, fold_keys(keys, 3))
        return ModelOutput(logits, fused.image, fused.text)

    def task_logits(
        self,
        image: Image,
        text: Text,
        text_mask: Bool[Array, "I K T"],
        *,
        image_mask: Bool[Array, "I g"] | None = None,
        keys: Key[Array, " I"] | None = None,
    ) -> Float[Array, "I K *s A"]:
        """The logits that the task's loss reads, computed from no more positions than it needs.

        One row a text, one at each of its tokens with the head `lm`, one at each grid position with `image_tokens`.
        """
        inputs, first_only = (image, text, text_mask), self.head.reads_first
        fused = self.streams(*inputs, image_mask=image_mask, keys=keys, first_only=first_only)
        return self.head.task_logits(fused, self.text.scores, fold_keys(keys, 3))

    def grid_features(self, image: Image) -> Float[Array, "I *grid F"]:
        """The outputs of the image encoder; stored ones, and features in the place of an image, as they are."""
        if image.dtype == jnp.uint8:
            raise InputError("an image is uint8; normalise it first (models.pixels.normalise_pixels)")
        is_features = self.settings.image.kind == "features"
        if is_features and image.ndim == 4 and image.shape[-1] == 3:
            raise InputError("the model reads stored grid features and has no image encoder, and pixels came")
        if is_features or image.dtype == jnp.float16:
            return image
        return self.encode_image(image)

    def encode_image(self, image: Float[Array, "I h w C"] | Int[Array, "I gh gw"]) -> Float[Array, "I *grid F"]:
        """What the fusion reads of the image encoder."""
        return self.image(image)

    def image_vector(self, image: Image) -> Float[Array, "I F"]:
        """The mean of each image's grid features, scaled to length 1: products of two images are cosines."""
        image = self.grid_features(image)
        features = image.reshape(len(image), -1, image.shape[-1]).astype(jnp.float32)
        mean = jnp.mean(features, axis=1)
        # Features that are 0 everywhere stay so: their cosine with any others is 0.
        return mean / jnp.maximum(jnp.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)

    def prefill_image(self, image: Image, *, image_mask: Bool[Array, "I g"] | None = None) -> Prefix:
        """What the tokens of texts attend to, computed once; the pattern must mask the text from the image."""
        image = self.grid_features(image)
        stream, _ = self.embed(image, self._no_text(len(image)))
        mask = jnp.ones((1, 1), bool) if image_mask is None else image_mask
        mask = jnp.broadcast_to(mask, (len(image), stream.shape[2]))
        return self.trunk.prefill(IMAGE, stream, mask[:, None])

    def prefill_prompt(self, text: Int[Array, "I K T"], text_mask: Bool[Array, "I K T"]) -> Prefix:
        """What image tokens attend to, computed once; the pattern must mask the image from the text."""
        _, stream = self.embed(None, self.text(text))
        return self.trunk.prefill(TEXT, stream, text_mask)

    def empty_cache(self, num_images: int, num_texts: int, length: int) -> list[KVCache]:
        """One cache a layer, for `length` positions of `num_texts` texts or prompts an image."""
        return empty_caches(self.settings, num_images, num_texts, length)

    def next_token_logits(
        self, prefix: Prefix, cache: list[KVCache], ids: Int[Array, "I K n"]
    ) -> tuple[Float[Array, "I K n V"], list[KVCache]]:
        """At each of n new tokens of every text, the logits of the next one, and the cache with the new tokens."""
        _, text = self.embed(None, self.text(ids, start=cache[0].length))
        mask = jnp.broadcast_to(cache[0].causal_mask(ids.shape[-1]), (*ids.shape, cache[0].key.shape[3]))
        text, cache = self.trunk.decode_step(text, mask, prefix, cache)
        return self._head_logits(text[:, :, :0], text), cache

    def image_token_logits(self, prefix: Prefix, tokens: Int[Array, "I gh gw"]) -> Float[Array, "I K G V"]:
        """`task_logits` of prompts that are in `prefix`."""
        image, _ = self.embed(self.image(tokens), self._no_text(len(tokens)))
        image = jnp.broadcast_to(image, (len(image), prefix.mask.shape[1], *image.shape[2:]))
        mask = stream_mask(self.settings.attention_pattern, IMAGE, jnp.ones(image.shape[:3], bool))
        image, _ = self.trunk.decode_step(image, mask, prefix, [None] * self.settings.num_layers)
        return self._head_logits(image, image[:, :, :0])

    def next_image_token_logits(
        self, prefix: Prefix, cache: list[KVCache], previous: Int[Array, "I n"], grid: tuple[int, int]
    ) -> tuple[Float[Array, "I K n V"], list[KVCache]]:
        """The logits of each of the next n image tokens, and the cache with them; the pattern is `autoregressive`.

        The query of an image token is the one before it in reading order; of the first, a masked one.
        """
        image, _ = self.embed(self.image(previous), self._no_text(len(previous)), grid=grid, start=cache[0].length)
        image = jnp.broadcast_to(image, (len(image), prefix.mask.shape[1], *image.shape[2:]))
        mask = jnp.broadcast_to(cache[0].causal_mask(previous.shape[1]), (*image.shape[:3], cache[0].key.shape[3]))
        image, cache = self.trunk.decode_step(image, mask, prefix, cache)
        return self._head_logits(image, image[:, :, :0]), cache

    def _no_text(self, num_images: int) -> Float[Array, "I 1 0 E"]:
        s = self.settings
        return jnp.zeros((num_images, 1, 0, s.text_feature_size), jnp.dtype(s.dtype))

    def _head_logits(self, image: Float[Array, "I k g D"], text: Float[Array, "I K n D"]) -> Float[Array, "I K m V"]:
        """Those of one stream; the other one is empty."""
        image_mask, text_mask = jnp.ones((len(image), image.shape[2]), bool), jnp.ones(text.shape[:3], bool)
        return self.head(Fused(image, text, image_mask, text_mask), self.text.scores)
