"""The vision-language model: CNN and BERT embeddings, fusion, head."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from vlm_jax.config import Model
from vlm_jax.errors import InputError
from vlm_jax.models.attention import IMAGE, TEXT, Cache, Memory, fold_keys, stream_mask
from vlm_jax.models.bert import TextEmbeddings
from vlm_jax.models.cnn import CodeEmbedding, make_cnn
from vlm_jax.models.feature_fusion import FeatureFusion
from vlm_jax.models.fusion import FUSIONS
from vlm_jax.models.heads import HEADS, Fused
from vlm_jax.types import ModelOutput

Image = Float[Array, "I h w C"] | Float[Array, "I G C"] | Int[Array, "I gh gw"]
Text = Int[Array, "I K T"] | Float[Array, "I K T E"]
FlatText = Int[Array, "I T"] | Float[Array, "I T E"]


class ImageMemory(NamedTuple):
    """What words read of pictures: of each layer, keys and values of the cells; and which cells are visible."""

    layers: list[Memory]
    mask: Bool[Array, "I G"]


class PromptMemory(NamedTuple):
    """What cells read of prompts: of each layer, keys and values of the words; and which words are visible."""

    layers: list[Memory]
    mask: Bool[Array, "I K T"]


class CellMemory(NamedTuple):
    """Keys and values of cells so far, in reading order, in room for all of them [I, K, H, G, d]."""

    layers: list[Memory]
    length: Int[Array, ""]
    """How many cells there are; every picture has as many."""


class WordMemory(NamedTuple):
    """Keys and values of words so far, in room of a fixed length [I, K, H, L, d]: the cache of a decoder."""

    layers: list[Memory]
    length: Int[Array, ""]
    """How many words there are; every text has as many."""


class VisualLanguageModel(nn.Module):
    """Pictures and K texts each -> logits.

    `image` is normalised pixels, or grid features [I, gh, gw, C] or [I, G, C] where `model.image.cnn` is `features`, or
    an image tokenizer's codes where it is `image_tokens`;
    `text` is token ids, or text features that already hold positions. `image_mask` [I, G] hides cells; [I, 1] hides
    all of them: the question alone. `keys`, one an example, switch dropout on.
    """

    settings: Model
    classes: int

    def setup(self) -> None:
        s = self.settings
        if s.attention_pattern is None or s.head is None:
            raise InputError(
                "model.attention_pattern and model.head are open; config_checks.check chooses them, or give both"
            )
        if s.image.cnn == "image_tokens":
            self.image = CodeEmbedding(s)
        elif s.image.cnn != "features":
            self.image = make_cnn(s.image, jnp.dtype(s.compute_dtype))
        self.text, self.embed = self.make_embeddings()
        self.trunk = FUSIONS[s.fusion](s)
        self.head = self.make_head()

    def make_embeddings(self) -> tuple[TextEmbeddings, FeatureFusion]:
        """What turns tokens into vectors, and what leads both sides into the trunk."""
        return TextEmbeddings(self.settings.text), FeatureFusion(self.settings)

    def make_head(self) -> nn.Module:
        """What stands on the streams."""
        return HEADS[self.settings.head](self.settings, self.classes)

    def word_logits(
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

    def code_logits(
        self,
        codes: Int[Array, "I gh gw"],
        text: Text,
        text_mask: Bool[Array, "I K T"],
        *,
        keys: Key[Array, " I"] | None = None,
    ) -> Float[Array, "I K G V"]:
        """Of every cell the logits of its code, given each text; hidden cells hold one code more than there are."""
        return self.head(self.streams(codes, text, text_mask, keys=keys))

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
        if image is not None and self.settings.image.cnn != "features":
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

        A text without the slot axis is one slot a picture, and what returns has no slot axis either: features
        [B, G, C] and [B, T, E] become logits [B, G + T, A].
        """
        if text_mask.ndim == 2:
            whole = self(image, text[:, None], text_mask[:, None], image_mask=image_mask, keys=keys)
            return ModelOutput(*(x[:, 0] for x in whole))
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
        """The mean cell of each picture's grid features, scaled to length 1: products of two pictures are cosines."""
        if self.settings.image.cnn != "features":
            image = self.image(image)
        cells = image.reshape(len(image), -1, image.shape[-1]).astype(jnp.float32)
        mean = jnp.mean(cells, axis=1)
        # Features that are 0 everywhere stay so, and are like nothing.
        return mean / jnp.maximum(jnp.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)

    def read_image(self, image: Image, *, image_mask: Bool[Array, "I g"] | None = None) -> ImageMemory:
        """What words read of pictures, computed once for all the words that follow, of which it must see none."""
        s = self.settings
        if s.image.cnn != "features":
            image = self.image(image)
        stream, _ = self.embed(image, self._no_text(len(image)))
        mask = jnp.ones((1, 1), bool) if image_mask is None else image_mask
        mask = jnp.broadcast_to(mask, (len(image), stream.shape[2]))
        return ImageMemory(self.trunk.read_given(IMAGE, stream, mask[:, None]), mask)

    def no_words(self, pictures: int, texts: int, length: int) -> WordMemory:
        """Room for `length` words of `texts` texts a picture, none of them there yet."""
        return WordMemory(self._room(pictures, texts, length), jnp.int32(0))

    def _room(self, pictures: int, texts: int, length: int) -> list[Memory]:
        s = self.settings
        room = jnp.zeros(
            (pictures, texts, s.num_attention_heads, length, s.hidden_size // s.num_attention_heads),
            jnp.dtype(s.compute_dtype),
        )
        return [(room, room)] * s.num_layers

    def read_prompt(self, text: Int[Array, "I K T"], text_mask: Bool[Array, "I K T"]) -> PromptMemory:
        """What cells read of prompts, computed once for all that is drawn of them; words must see no image."""
        _, stream = self.embed(None, self.text(text))
        return PromptMemory(self.trunk.read_given(TEXT, stream, text_mask), text_mask)

    def prompted_code_logits(self, prompt: PromptMemory, codes: Int[Array, "I gh gw"]) -> Float[Array, "I K G V"]:
        """`code_logits` of prompts that have been read."""
        image, _ = self.embed(self.image(codes), self._no_text(len(codes)))
        image = jnp.broadcast_to(image, (len(image), prompt.mask.shape[1], *image.shape[2:]))
        mask = stream_mask(self.settings.attention_pattern, IMAGE, jnp.ones(image.shape[:3], bool))
        return self._cell_logits(*self.trunk.read_on(image, mask, *prompt, [None] * self.settings.num_layers))[0]

    def no_cells(self, pictures: int, texts: int, cells: int) -> CellMemory:
        """Room for `cells` cells of a picture for each of `texts` prompts, none of them there yet."""
        return CellMemory(self._room(pictures, texts, cells), jnp.int32(0))

    def next_code_logits(
        self, prompt: PromptMemory, cells: CellMemory, before: Int[Array, "I n"], grid: tuple[int, int]
    ) -> tuple[Float[Array, "I K n V"], CellMemory]:
        """Of each of the n next cells the logits of its code, under the pattern `autoregressive`.

        A cell is asked for by the code before it, in reading order; before the first one there is a hidden one.
        """
        new, room = before.shape[1], cells.layers[0][0].shape[3]
        image, _ = self.embed(self.image(before), self._no_text(len(before)), grid=grid, start=cells.length)
        image = jnp.broadcast_to(image, (len(image), prompt.mask.shape[1], *image.shape[2:]))
        mask = jnp.arange(room)[None] <= cells.length + jnp.arange(new)[:, None]
        mask = jnp.broadcast_to(mask, (*image.shape[:3], room))
        caches = [Cache(*layer, cells.length) for layer in cells.layers]
        logits, layers = self._cell_logits(*self.trunk.read_on(image, mask, *prompt, caches))
        return logits, CellMemory(layers, cells.length + new)

    def _no_text(self, pictures: int) -> Float[Array, "I 1 0 E"]:
        s = self.settings
        return jnp.zeros((pictures, 1, 0, s.text.feature_size), jnp.dtype(s.compute_dtype))

    def _cell_logits(
        self, image: Float[Array, "I K n D"], layers: list[Memory]
    ) -> tuple[Float[Array, "I K n V"], list[Memory]]:
        nothing = jnp.zeros((len(image), 0), bool)
        return self.head(Fused(image, image[:, :, :0], nothing, nothing[:, None])), layers

    def next_word_logits(
        self, image: ImageMemory, words: WordMemory, ids: Int[Array, "I K n"]
    ) -> tuple[Float[Array, "I K n V"], WordMemory]:
        """After each of n new words of every text, the logits of the one that comes next.

        The words before are those in `words`; what returns holds the new ones as well.
        """
        new, room = ids.shape[-1], words.layers[0][0].shape[3]
        _, text = self.embed(None, self.text(ids, start=words.length))
        mask = jnp.arange(room)[None] <= words.length + jnp.arange(new)[:, None]
        mask = jnp.broadcast_to(mask, (*ids.shape, room))
        caches = [Cache(*layer, words.length) for layer in words.layers]
        text, layers = self.trunk.read_on(text, mask, image.layers, image.mask[:, None], caches)
        return self.head(text, self.text.scores), WordMemory(layers, words.length + new)
